"""Predict emotions from media files, with the extractors that a checkpoint's features were made by."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.extractor import Extracted, FloatArray
from datamodules.extraction.index.reading import one_line, without_tags
from datamodules.extraction.media.given import Given, Images, Samples
from datamodules.extraction.media.subtitles import read_subtitles
from datamodules.extraction.media.windows import LONGEST_UTTERANCE, check_windows, windows
from datamodules.extraction.recorded import RecordedExtractors
from datamodules.extraction.recordings import Half, Recording, Source
from ifmmin.base import MissingModalityModule
from ifmmin.calibration.temperatures import check_asked, check_temperatures
from ifmmin.checkpoints import load_model
from ifmmin.inference import Answer as Said
from ifmmin.inference import Predictor
from ifmmin.results.answers import Answer

if TYPE_CHECKING:
    from typing_extensions import Self


_MOST_WINDOWS = 100_000


class _Asked(NamedTuple):
    """How sure an answer is to be, as :meth:`ifmmin.Predictor.predict` takes it."""

    calibrated: bool
    abstain_below: float | None


class MediaPredictor:
    """Answers for media files: sound, faces and words are turned into the features that the model was trained on.

    Extractors are made when a file has something for them. Nothing is written, and nothing is fetched from a network
    unless ``download`` is given.

    Args:
        predictor: of a trained model.
        extraction: how each modality's features were made, from the checkpoint's record of its training data.
        device: where extractors that are networks run.
        download: whether they may fetch weights that are not on this machine.
        weights: files or folders of extractors' weights, by modality or for ``detector``, where the checkpoint names
            ones of another machine; they must be the same weights.

    Attributes:
        predictor: answers for features.

    Raises:
        InputError: the features were not made by extractors.
    """

    def __init__(
        self,
        predictor: Predictor,
        extraction: Mapping[str, Mapping[str, Any]] | None,
        device: str = "cpu",
        download: bool = False,
        weights: Mapping[str, str | Path] | None = None,
    ) -> None:
        if not extraction:
            raise InputError(
                f"{predictor.source}: this checkpoint's features came ready-made; media cannot be turned into them. "
                "Train on extracted features."
            )
        self.predictor = predictor
        self._extractors = RecordedExtractors(extraction, device, download, weights)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        device: str = "cpu",
        model: type[MissingModalityModule] | None = None,
        download: bool = False,
        weights: Mapping[str, str | Path] | None = None,
    ) -> Self:
        """Read a checkpoint that ``fit`` wrote; nothing in it is executed.

        Args:
            checkpoint: for instance ``runs/.../checkpoints/epoch017.ckpt``.
            device: where the model and extractors that are networks run.
            model: the class, for a model of your own that is not among the installed ones.
            download: whether extractors may fetch weights that are not on this machine.
            weights: files or folders of extractors' weights, where the checkpoint names ones of another machine.

        Raises:
            InputError: it cannot be read, something else wrote it, its model is not installed or another than
                ``model``, or it was trained on features that came ready-made.
        """
        loaded, trained_on = load_model(checkpoint, model)
        predictor = Predictor(loaded.to(device), trained_on, str(checkpoint))
        return cls(predictor, trained_on.get("extraction"), device, download, weights)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str = "cpu",
        model: type[MissingModalityModule] | None = None,
        download: bool = False,
        weights: Mapping[str, str | Path] | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load what ``save_pretrained`` wrote; nothing in it is executed.

        The first arguments are those of :meth:`load`, the others those of :meth:`ifmmin.Predictor.from_pretrained`.

        Raises:
            InputError: as of both.
        """
        predictor = Predictor.from_pretrained(
            source, device, model, revision=revision, token=token, local_files_only=local_files_only
        )
        return cls(predictor, (predictor.model.trained_on or {}).get("extraction"), device, download, weights)

    def predict(
        self,
        media: str | Path | None = None,
        *,
        text: str | None = None,
        frames: Images | None = None,
        fps: float | None = None,
        samples: Samples | None = None,
        without: Collection[str] = (),
        half: Half = "whole",
        calibrated: bool = False,
        abstain_below: float | None = None,
    ) -> Answer:
        """Answer for one utterance of at most 30 seconds.

        Args:
            media: a video or sound file; None if everything is given by the other arguments.
            text: the words.
            frames: pictures uint8 [H, W, 3] in RGB, instead of the file's.
            fps: how many of these are shown a second.
            samples: sound in -1..1, float32 [n] or [n, channels], and its rate in hertz, instead of the file's.
            without: modalities to leave out.
            half: the part of the picture that shows the speaker: ``whole``, ``left`` or ``right``.
            calibrated: see :meth:`ifmmin.Predictor.predict`; what each modality alone says is calibrated too.
            abstain_below: see :meth:`ifmmin.Predictor.predict`.

        Raises:
            InputError: there is no such file, it is not media, it is too long, nothing of it can be used, the model
                does not answer what there is, or an extractor is not installed; or as of
                :meth:`ifmmin.Predictor.predict`.
        """
        asked = self._asked(calibrated, abstain_below)
        given = Given(media, text, frames, fps, samples, without, half)
        answer = self._answer(*self._extracted(given), asked)
        if answer.problem:
            raise InputError(f"{given.shown}: {answer.problem}.")
        return answer

    def features(
        self,
        media: str | Path | None = None,
        *,
        text: str | None = None,
        frames: Images | None = None,
        fps: float | None = None,
        samples: Samples | None = None,
        without: Collection[str] = (),
        half: Half = "whole",
    ) -> dict[str, FloatArray]:
        """Features float32 [T, D] of one utterance by modality, of those that are there, as the corpus would have them.

        They are what :meth:`ifmmin.Predictor.predict` takes. Arguments and errors are those of :meth:`predict`.
        """
        given = Given(media, text, frames, fps, samples, without, half)
        return self._extracted(given)[1].features

    def answers(
        self,
        media: str | Path,
        *,
        subtitles: str | Path | None = None,
        window: float | None = None,
        hop: float | None = None,
        without: Collection[str] = (),
        half: Half = "whole",
        calibrated: bool = False,
        abstain_below: float | None = None,
    ) -> Iterator[Answer]:
        """Answer for each subtitle, or for each window, of a file of any length.

        The file is decoded forward, and an answer comes when its time is over: those last in which faces had to be
        looked for twice. Where there is none, its ``problem`` says why.

        Args:
            media: a video or sound file.
            subtitles: a .srt or .vtt file; the words of each are its text.
            window: seconds of a window, at most 30.
            hop: seconds from a window's start to the next one's, by default ``window``; above it, gaps are left out.
            without: modalities to leave out.
            half: the part of the picture that shows the speaker.
            calibrated: see :meth:`predict`.
            abstain_below: see :meth:`predict`.

        Raises:
            InputError: there is no such file, it is not media, subtitles cannot be read, windows are out of range,
                both or neither of them are given, or an extractor is not installed; or as of
                :meth:`ifmmin.Predictor.predict`.
        """
        asked = self._asked(calibrated, abstain_below)
        given = Given(media, None, None, None, None, without, half)
        if (subtitles is None) == (window is None):
            raise InputError("give either subtitles or a window.")
        if window is None:
            if hop is not None:
                raise InputError("a hop belongs to windows; leave it out, or give a window instead of subtitles.")
            cues = read_subtitles(Path(str(subtitles)))
            if "text" not in self._usable(given):
                raise InputError(f"subtitles are given, but text is absent: {self._why(given, 'text')}.")
            return self._each(given, [(cue.start, cue.end, cue.text) for cue in cues], asked)
        hop = window if hop is None else hop
        check_windows(window, hop)
        if given.tracks.seconds / hop > _MOST_WINDOWS:
            raise InputError(f"{given.shown}: more than {_MOST_WINDOWS} windows; give a longer hop.")
        spans = [(start, end, None) for start, end in windows(given.tracks.seconds, window, hop)]
        return self._each(given, spans, asked)

    def _each(self, given: Given, spans: Iterable[tuple[float, float, str | None]], asked: _Asked) -> Iterator[Answer]:
        recordings: dict[str, Recording] = {}
        for number, (start, end, text) in enumerate(spans, start=1):
            recording = self._recording(given, f"{given.utterance}-{number:05}", text, start, end)
            if end - start > LONGEST_UTTERANCE:
                yield _unanswered(given, recording, _too_long(end - start))
            else:
                recordings[recording.utterance] = recording
        pipeline = self._extractors.pipeline({modality for each in recordings.values() for modality in _needed(each)})
        for extracted in pipeline.extract([*recordings.values()]):
            yield self._answer(given, extracted, recordings[extracted.utterance], asked)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that media can be turned into for this checkpoint; the features of others came ready-made."""
        return tuple(self._extractors.modalities)

    def prepare(self, modalities: Collection[str]) -> float:
        """Make the extractors of ``modalities`` now, instead of when the first file needs them.

        Returns:
            how many pictures a second the visual extractor reads.

        Raises:
            InputError: one is not installed, or its weights are not here.
        """
        self._extractors.pipeline({*modalities} & {*self._extractors.modalities})
        return self._extractors.fps

    # From what is given to features.

    def _extracted(self, given: Given) -> tuple[Given, Extracted, Recording]:
        """Features of one utterance.

        Raises:
            InputError: see :meth:`predict`.
        """
        if given.path is None and not (given.text or "").strip() and not given.in_memory:
            raise InputError("nothing is given: give a file, text, frames with fps, or samples with their rate.")
        if (given.text or "").strip() and "text" not in self._usable(given):
            raise InputError(f"text is given, but is absent: {self._why(given, 'text')}.")
        if given.seconds > LONGEST_UTTERANCE:
            raise InputError(
                f"{given.shown}: {_too_long(given.seconds)}; give subtitles or a window, for an answer to each."
            )
        recording = self._recording(given, given.utterance, given.text)
        pipeline = self._extractors.pipeline(_needed(recording))
        names = {"audio": "samples", "visual": "frames"}
        parts = {names[modality]: given.in_memory[modality] for modality in given.in_memory.keys() & _needed(recording)}
        extracted = pipeline.extract_one(recording, **parts) if parts else next(iter(pipeline.extract([recording])))
        return given, extracted, recording

    def _recording(
        self, given: Given, utterance: str, text: str | None, start: float = 0.0, end: float | None = None
    ) -> Recording:
        """What there is of an utterance, with the reasons for the rest."""
        usable = self._usable(given)
        words = self._words(text) if "text" in usable else ""
        source = None if given.path is None else Source(given.path, start, end)
        seen = {modality: source for modality in ("audio", "visual") if modality in usable - given.in_memory.keys()}
        here = {*seen, *(given.in_memory.keys() & usable)} | ({"text"} if words else set())
        return Recording(
            utterance,
            sound=seen.get("audio"),
            picture=seen.get("visual"),
            text=words or None,
            half=given.half,
            absent={modality: self._why(given, modality) for modality in MODALITIES if modality not in here},
        )

    def _words(self, text: str | None) -> str:
        """Words as those that the text extractor was given in training."""
        words = text or ""
        return without_tags(words) if self._extractors.removes_tags else one_line(words)

    def _usable(self, given: Given) -> set[str]:
        """Modalities that there is something of, that are not left out, and that an extractor is recorded for."""
        found = {"text", *given.in_memory}
        if given.path is not None:
            found |= {"audio", "visual"} - given.tracks.absent.keys()
        return (found & {*self._extractors.modalities}) - {*given.without}

    def _why(self, given: Given, modality: str) -> str:
        """Why nothing of a modality is used."""
        if modality in given.without:
            return "left out"
        if modality not in self._extractors.modalities:
            return f"this checkpoint's {modality} features came ready-made"
        if modality == "text":
            return "no transcript"
        return "not given" if given.path is None else given.tracks.absent.get(modality, "not given")

    # From features to an answer.

    def _asked(self, calibrated: bool, abstain_below: float | None) -> _Asked:
        """How sure answers are to be; refused, before a file is read, where none could be."""
        model = self.predictor.model
        check_asked(model.task, model.temperatures, self.predictor.source, calibrated, abstain_below)
        return _Asked(calibrated, abstain_below)

    def _answer(self, given: Given, extracted: Extracted, recording: Recording, asked: _Asked) -> Answer:
        source = recording.sound or recording.picture
        start = 0.0 if source is None else source.start
        end = source.end if source is not None and source.end is not None else start + extracted.seconds
        features = {modality: extracted.features[modality] for modality in MODALITIES if modality in extracted.features}
        condition = "".join(modality[0] for modality in features)
        reasons = {**recording.absent, **extracted.absent}
        absent = {modality: reasons[modality] for modality in MODALITIES if modality in reasons}
        problem = self._problem(condition, absent, asked)
        names = () if problem else dict.fromkeys((condition, *condition))
        says = {name: self._says(features, name, asked) for name in names}
        said = says.get(condition)
        return Answer(
            name=given.shown,
            start=start,
            end=end,
            probability=dict(said or {}),
            condition=_braces(condition),
            frames={modality: len(frames) for modality, frames in features.items()},
            absent=absent,
            each={modality: _plain(says[modality[0]]) for modality in features} if says else {},
            faces=self._extractors.faces(recording.utterance) if "visual" in features else None,
            text=recording.text,
            remarks=extracted.remarks,
            problem=problem,
            calibrated=asked.calibrated and said is not None,
            abstained=said is not None and said.abstained,
        )

    def _problem(self, condition: str, absent: Mapping[str, str], asked: _Asked) -> str:
        """Why there is no answer under ``condition``, one of the seven or nothing; blank if there is one."""
        if not condition:
            reasons = "; ".join(f"{modality}: {why}" for modality, why in absent.items())
            return f"nothing of it can be used ({reasons})"
        model = self.predictor.model
        if model.answers(condition):
            return self._uncalibrated(condition) if asked.calibrated else ""
        answered = [name for name in CONDITIONS if model.answers(name)]
        shown = ", ".join(map(_braces, answered))
        within = [name for name in answered if {*name} < {*condition}]
        less = [modality for modality in MODALITIES if within and modality[0] in {*condition} - {*within[-1]}]
        advice = f"; leave out {' and '.join(less)}" if less else ""
        return f"{type(model).__name__} answers {shown}, not {_braces(condition)}{advice}"

    def _uncalibrated(self, condition: str) -> str:
        """Why probabilities under ``condition`` cannot be calibrated; blank if they can."""
        try:
            check_temperatures(self.predictor.model.temperatures, [condition], self.predictor.source)
        except InputError as error:
            return str(error).rstrip(".")
        return ""

    def _says(self, features: Mapping[str, FloatArray], condition: str, asked: _Asked) -> Said | None:
        if not self.predictor.model.answers(condition) or (asked.calibrated and self._uncalibrated(condition)):
            return None
        seen = {name: frames for name, frames in features.items() if name[0] in condition}
        return self.predictor.predict(seen, calibrated=asked.calibrated, abstain_below=asked.abstain_below)


def _plain(said: Said | None) -> dict[str, float] | None:
    return None if said is None else dict(said)


def _too_long(seconds: float) -> str:
    return f"{seconds:.0f} s long, but models know utterances of up to {LONGEST_UTTERANCE:.0f} s"


def _needed(recording: Recording) -> set[str]:
    """Modalities that a recording has a source of."""
    return {modality for modality in MODALITIES if modality not in recording.absent}


def _braces(condition: str) -> str:
    return "{" + ",".join(condition) + "}"


def _unanswered(given: Given, recording: Recording, problem: str) -> Answer:
    source = recording.sound or recording.picture
    start, end = (source.start, source.end or 0.0) if source is not None else (0.0, 0.0)
    return Answer(given.shown, start, end, {}, "{}", {}, {}, {}, text=recording.text, problem=problem)
