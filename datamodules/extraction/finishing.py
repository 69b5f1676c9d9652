"""What makes a corpus of feature files: provenance, ``corpus.json``, target files and the log."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.assembling import Assembled, feature_path
from datamodules.extraction.description import write_description
from datamodules.extraction.extractors.ready_made import weights_path
from datamodules.extraction.groups import Sizes
from datamodules.extraction.index import write_folds
from datamodules.extraction.parts import FOLDER
from datamodules.extraction.provenance import describe, library_version, read_provenance
from datamodules.extraction.recipes import ExtractionRecipe
from datamodules.extraction.recordings import Index, Recording
from datamodules.extraction.worker import Feature
from datamodules.files import write_text
from datamodules.storage.description import read_description
from datamodules.storage.layouts import FOLDERS
from datamodules.storage.problems import Problem
from datamodules.text import printable

LOG = "extraction.log"

InTargets = Literal["drop", "keep"]
"""Whether utterances that lack a modality are left out of the target files."""

_REMOVED = ".extract-removed"


def check_out(out: Path, raw: Path, index: Index) -> None:
    """Refuse a folder that a corpus cannot be written into.

    Args:
        out: the folder; it need not exist.
        raw: of the recordings, or their manifest.
        index: of the recordings.

    Raises:
        InputError: it is a file, the recordings' own folder, or holds another corpus.
    """
    shown = printable(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{shown}: is not a folder; name another one.")
    own = raw if raw.is_dir() else raw.parent
    if out.exists() and own.exists() and out.samefile(own):
        raise InputError(f"{shown}: is the folder of the recordings; name another one for the features.")
    before = read_description(out)
    if before is not None:
        ids = {recording.utterance for recording in index.recordings}
        if before.corpus != index.corpus or (before.speakers and ids.isdisjoint(before.speakers)):
            raise InputError(f"{shown}: holds another corpus, {printable(before.name, 60)}; name another folder.")
        return
    for path in (path for folder in FOLDERS for path in sorted((out / folder).glob("*.h5"))):
        provenance = read_provenance(path)
        if provenance is None or provenance["corpus"] != index.corpus:
            raise InputError(f"{printable(path)}: is not of this corpus, or not extracted; name another folder.")
    if (out / "target").exists():
        raise InputError(f"{shown}: holds a corpus that was not extracted; name another folder.")


def provenance_of(
    index: Index, recipe: ExtractionRecipe, features: Mapping[str, Feature], present: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """Describe how each feature file is made.

    Args:
        index: of the recordings.
        recipe: the extractors chosen.
        features: what the extractors say of themselves, by modality.
        present: ids in each file.
    """
    sizes = Sizes()
    detector = _without_folders(recipe.detector.to_dict())
    made = {}
    for modality, feature in features.items():
        choice = _without_folders(recipe.choices[modality].to_dict())
        made[modality] = describe(
            choice["extractor"],
            choice["options"],
            feature.recipe,
            None if feature.detector is None else {**detector, "recipe": feature.detector},
            rate=feature.rate,
            width=feature.width,
            corpus=index.corpus,
            facts=index.facts,
            utterances=present[modality],
            sources=[_source(recording, modality, sizes) for recording in index.recordings],
        )
    return made


def is_there(
    out: Path,
    features: Mapping[str, Feature],
    provenance: Mapping[str, Mapping[str, Any]],
    recordings: Sequence[Recording],
) -> bool:
    """Whether a corpus was finished, of the same recordings by the same recipe; parts are left where it was not.

    Args:
        out: folder of the corpus.
        features: what would be made, by modality.
        provenance: of what would be made; ids are not compared, as they are known only afterwards.
        recordings: of the corpus.
    """
    if any((out / FOLDER).glob("*/*.npz")):
        return False
    made = {modality: feature_path(out, modality, feature.name) for modality, feature in features.items()}
    if not any(path.is_file() for path in made.values()):
        return False
    for modality, path in made.items():
        if not path.is_file() and not any(_has_source(recording, modality) for recording in recordings):
            continue  # nothing to make it of
        found = read_provenance(path)
        if found is None or {**found, "utterances": ""} != {**provenance[modality], "utterances": ""}:
            return False
    return True


def _without_folders(choice: dict[str, Any]) -> dict[str, Any]:
    """Options with the names of files only: folders name people and machines."""
    options = {
        name: Path(value).name if isinstance(value, str) and (Path(value).is_absolute() or _is_file(value)) else value
        for name, value in choice["options"].items()
    }
    return {**choice, "options": options}


def _is_file(value: str) -> bool:
    """Whether an option names a file or folder of this machine, and not a model of a hub or a number."""
    return len(Path(value).parts) > 1 and weights_path(value).exists()


def _source(recording: Recording, modality: str, sizes: Sizes) -> list[Any]:
    """What of a recording the features of a modality come from, the same on any machine."""
    if modality == "text":
        words = hashlib.sha256((recording.text or "").encode(errors="surrogatepass"))
        return [recording.utterance, words.hexdigest()]
    source = recording.sound if modality == "audio" else recording.picture
    if source is None:
        return [recording.utterance, None]
    return [recording.utterance, (sizes(source.path) or (None,))[0], source.start, source.end]


def _has_source(recording: Recording, modality: str) -> bool:
    if modality == "text":
        return bool((recording.text or "").strip())
    return (recording.sound if modality == "audio" else recording.picture) is not None


def default_names(out: Path, names: Mapping[str, str], whole: bool) -> dict[str, str]:
    """The feature files that a corpus is read with unless others are named.

    Args:
        out: folder of the corpus.
        names: of the files that were written, by modality.
        whole: whether they are those of all modalities; otherwise files that are there stay the default.
    """
    before = read_description(out)
    earlier = {} if before is None or whole else dict(before.feature_names)
    return {**names, **earlier}


def finish(out: Path, index: Index, names: Mapping[str, str], incomplete: InTargets) -> tuple[Problem, ...] | None:
    """Write ``corpus.json`` and the target files of a corpus whose feature files are there.

    Args:
        out: folder of the corpus.
        index: of the recordings.
        names: of the feature files that the corpus is read with, by modality.
        incomplete: whether utterances that lack a modality are left out of the targets.

    Returns:
        a problem for each split that is left empty; None if nothing is labelled or no labelled utterance serves, and
        no target is written.

    Raises:
        InputError: the corpus cannot be described.
        OSError: a file cannot be written.
    """
    if not index.folds:
        write_description(out, index, names)
        shutil.rmtree(out / "target", ignore_errors=True)  # of an earlier run, when there were labels
        return None
    if incomplete == "keep":  # so that whoever reads the corpus need not be told again
        index = replace(index, facts={**index.facts, "incomplete": incomplete})
    present = [_ids(feature_path(out, modality, names[modality])) for modality in MODALITIES if modality in names]
    if len(present) < len(MODALITIES):
        present.append(set())
    usable = set.union(*present) if incomplete == "keep" else set.intersection(*present)
    labelled = {name for splits in index.folds.values() for among in splits.values() for name in among}
    write_description(out, index, names, usable)
    if not usable & labelled:
        shutil.rmtree(out / "target", ignore_errors=True)
        return None
    return write_folds(out, index, usable)


def _ids(path: Path) -> set[str]:
    """Ids in a feature file; none if there is no file."""
    found: set[str] = set()
    if path.is_file():
        with h5py.File(path) as file:
            file.visititems(lambda name, entry: found.add(name) if isinstance(entry, h5py.Dataset) else None)
    return found


def write_log(out: Path, raw: Path, index: Index, features: Mapping[str, Feature], assembled: Assembled) -> None:
    """Write what was found, the same for the same recordings: counts, problems, absences and remarks by id."""
    lines = [f"ifmmin {library_version()}: {index.corpus}, {len(index.recordings)} utterances"]
    for modality, feature in features.items():
        there = len(assembled.present(modality))
        lines.append(f"{modality} {feature.name}: {there} present, {len(assembled.findings[modality]) - there} absent")
    lines += [f"note: {note}" for note in index.notes]
    lines += [f"problem: {_relative(problem, raw)}" for problem in index.problems]
    for name, finding in assembled.utterances.items():
        why = {modality: found[name].why for modality, found in assembled.findings.items() if name in found}
        about = [f"{modality} absent ({reason})" for modality, reason in why.items() if reason is not None]
        if about := [*about, *finding.remarks]:
            lines.append(f"{name}: {'; '.join(about)}")
    write_text(out / LOG, "".join(f"{printable(line, 2000)}\n" for line in lines))


def _relative(problem: Problem, raw: Path) -> Problem:
    try:
        return replace(problem, path=problem.path.relative_to(raw if raw.is_dir() else raw.parent))
    except ValueError:
        return problem


def remove_parts(out: Path) -> None:
    """Remove all parts; a kill meanwhile leaves none that would be missed."""
    removed = out / _REMOVED
    shutil.rmtree(removed, ignore_errors=True)
    if (out / FOLDER).exists():
        (out / FOLDER).rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
