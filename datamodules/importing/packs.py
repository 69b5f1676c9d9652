"""A pack in, a corpus of :class:`~datamodules.CMUMOSI` and its like out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.provenance import library_version
from datamodules.importing.finishing import FACT, is_there, made_whole, sha256_of
from datamodules.importing.mmsa import KEYS, Pack, Said, not_finite, pack_name, read_pack
from datamodules.importing.published import PUBLISHED, SUMS, corpus_of_sizes
from datamodules.importing.sequences import FloatArray
from datamodules.storage.description import VALUES, Description, write_description
from datamodules.storage.problems import Problems, Strict
from datamodules.storage.targets import SPLITS
from datamodules.storage.writing import write_frames, write_targets
from datamodules.text import printable


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes:
        facts: what ``corpus.json`` says of it.
        notes: what is odd about the pack, though it can be used.
        written: whether the corpus was written now; False: it was there, or is only to be looked at.
        pack: what was read; None where the corpus was there.
    """

    facts: dict[str, Any]
    notes: tuple[str, ...]
    written: bool
    pack: Pack | None


def import_pack(
    corpus: str,
    path: Path,
    out: Path | None,
    *,
    zero_not_finite: bool = False,
    allow_shared_videos: bool = False,
    said: Said = lambda what, count: None,
) -> Imported:
    """Make a corpus of a pack in the form that MMSA published.

    Args:
        corpus: a name of :data:`~datamodules.importing.published.PUBLISHED`.
        path: of the pack.
        out: folder of the corpus; None: only read everything and say what is wrong.
        zero_not_finite: set NaN and infinity to 0 in all modalities, as minus infinity is in audio.
        allow_shared_videos: take a pack whose splits share videos, where the published one's do not.
        said: told of the progress: of what, and how many more utterances; of the digest, how many bytes.

    Raises:
        InputError: ``out`` holds something else, or there is no such corpus.
        CorpusError: the pack is damaged or of another corpus, its splits share videos, a value is not finite.
        OSError: a file cannot be read or written, or the disk is full; nothing is left behind.
    """
    if corpus not in PUBLISHED:
        raise InputError(f"import {printable(corpus, 60)}: no such corpus; there are {', '.join(PUBLISHED)}.")
    layout, problems = PUBLISHED[corpus].layout, Strict()
    if not path.is_file():
        problems.add(path, "is no file" if path.exists() else "does not exist", "give the path of the pack")
    digest = sha256_of(path, lambda size: said("SHA-256", size))
    known = SUMS.get(digest)
    if known is not None and known[0] != corpus:
        problems.add(path, f"is {known[1]} of {known[0]}, by its SHA-256", f"import it as {known[0]}")
    decisive = {"sha256": digest, "zero_not_finite": zero_not_finite, "ifmmin": library_version()}
    if out is not None and is_there(out, decisive):
        return Imported(decisive, (), False, None)
    pack = read_pack(path, layout, said)
    _refuse_other_corpus(path, pack, corpus, problems)
    if not layout.speakers_shared and not allow_shared_videos:
        for (first, second), videos in pack.shared.items():
            what = f"video {', '.join(videos)} is in both {first} and {second}"
            problems.add(path, what, "take the published split, or give --allow-shared-videos")
    frames = _Frames(path, pack, zero_not_finite, said)
    facts: dict[str, Any] = {
        **decisive,
        "pack": path.name,
        "bytes": path.stat().st_size,
        "published": known[1] if known else None,
        "aligned": pack.aligned,
    }
    if out is None:
        for modality in MODALITIES:
            for _ in frames.of(modality):
                pass
        return Imported(facts | frames.facts(), _notes(pack, corpus, known is not None), False, pack)
    with made_whole(out) as new:
        for modality in MODALITIES:
            sequences = [part.sequences[modality].lengths for part in pack.splits.values()]
            ids = [name for part in pack.splits.values() for name in part.ids]
            lengths = dict(zip(ids, (length for each in sequences for length in each), strict=True))
            place = layout.feature_path(new, MODALITIES.index(modality))
            in_order = {name: lengths[name] for name in sorted(lengths)}
            write_frames(place, in_order, pack.widths[modality], frames.of(modality))
        facts |= frames.facts()
        splits = {split: (pack.splits[split].ids, pack.splits[split].labels) for split in SPLITS}
        write_targets(new / "target" / "1", splits)
        description = Description(
            name=layout.name,
            corpus=corpus,
            labels=layout.labels,
            folds=layout.folds,
            feature_names=dict(zip(MODALITIES, layout.feature_names, strict=True)),
            counts={1: {split: {VALUES: len(pack.splits[split].ids)} for split in SPLITS}},
            facts={FACT: facts, **({"invented": True} if pack.invented else {})},
        )
        write_description(new, description)
    return Imported(facts, _notes(pack, corpus, known is not None), True, pack)


class _Frames:
    """Gives the frames of a pack and counts what was changed in them."""

    def __init__(self, path: Path, pack: Pack, zero_not_finite: bool, said: Said) -> None:
        self._path, self._pack, self._zero, self._said = path, pack, zero_not_finite, said

    def of(self, modality: str) -> Iterator[tuple[str, FloatArray]]:
        """Ids and frames of all splits.

        Raises:
            CorpusError: a value is not finite.
        """
        counts = self._pack.counts[modality] = replace(
            self._pack.counts[modality], replaced_values=0, replaced_utterances=0
        )
        for split, part in self._pack.splits.items():
            wrong: list[str] = []
            example = ""
            done = self._done(modality)
            given = part.sequences[modality].frames(modality == "audio", self._zero, counts, done)
            for name, frames in zip(part.ids, given, strict=True):
                if (value := not_finite(frames)) is not None:
                    wrong.append(name)
                    example = example or value
                else:
                    yield name, frames
            done(len(part.ids))
            problems: Problems = Strict()
            what = f"{pack_name(split)}: {KEYS[modality]} has the value {example}"
            problems.add_if_any(self._path, wrong, what, "--zero-not-finite sets such values to 0 and counts them")

    def _done(self, modality: str) -> Any:
        before = 0

        def done(count: int) -> None:
            nonlocal before
            self._said(modality, count - before)
            before = count
            self._pack.release()

        return done

    def facts(self) -> dict[str, Any]:
        """What was changed, by modality."""
        return {name: {key: value for key, value in asdict(self._pack.counts[name]).items() if value} for name in KEYS}


def _refuse_other_corpus(path: Path, pack: Pack, corpus: str, problems: Problems) -> None:
    """Refuse a pack whose splits have the sizes of another corpus."""
    other = corpus_of_sizes(pack.sizes)
    if other is not None and other != corpus:
        sizes = " / ".join(map(str, pack.sizes))
        problems.add(path, f"has {sizes} utterances, the sizes of {other}, not of {corpus}", f"import it as {other}")


def _notes(pack: Pack, corpus: str, known: bool) -> tuple[str, ...]:
    """What is odd, in one line each."""
    notes = []
    published = PUBLISHED[corpus]
    if not known:
        notes.append("its SHA-256 is none of those that MMSA states, so it is another pack, or a changed one")
        expected = (*published.sizes, *published.widths)
        found = (*pack.sizes, *(pack.widths[name] for name in MODALITIES))
        if found != expected:
            form = "{} / {} / {} utterances and widths {} / {} / {}"
            notes.append(f"it has {form.format(*found)}, where the published packs have {form.format(*expected)}")
    for (first, second), videos in pack.shared.items():
        what = f"{first} and {second} share {len(videos)} videos, such as {printable(videos[0], 60)}"
        notes.append(f"{what}: no new speakers are tested")
    if pack.without_video:
        notes.append(f"{pack.without_video} ids are not of the form VIDEO$_$CLIP, so their videos are not known")
    return tuple(notes)
