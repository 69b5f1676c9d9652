"""Where a saved model is: a folder, one that comes with the library, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.files import expanded
from datamodules.optional import require
from datamodules.text import printable
from ifmmin.sharing.folder import FILES

SHIPPED = ("privileged", "synthetic")
"""Models of the built-in corpora that come with the library; ``python -m benchmarks.pretrained`` makes them."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def shipped_folder(name: str) -> Path:
    """Folder of a model that comes with the library."""
    return Path(__file__).parent / "weights" / name


def stored_at(source: str | Path) -> Path:
    """Path of a checkpoint or of a saved model on this machine; text of :data:`SHIPPED` is that model's folder.

    Raises:
        InputError: it is no name of a file.
    """
    return shipped_folder(source) if isinstance(source, str) and source in SHIPPED else expanded(source)


def located(
    source: str | Path, *, revision: str | None = None, token: str | None = None, local_files_only: bool = False
) -> Path:
    """The folder of a saved model, fetched from the Hub if it is named there.

    Args:
        source: a folder, a name of :data:`SHIPPED`, or ``org/name`` on the Hub.
        revision: branch, tag or commit on the Hub; by default its newest.
        token: of the Hub, for private models; by default the one that is logged in.
        local_files_only: take what was fetched before, and ask no network.

    Raises:
        InputError: there is no such thing, it cannot be fetched, or the extra ``hub`` is not installed.
    """
    folder = stored_at(source)
    if not folder.is_dir():
        return _fetched(source, folder, revision, token, local_files_only)
    if revision is not None:
        raise InputError(f"{printable(source)}: is a folder of this machine; leave revision out.")
    return folder


def _fetched(source: str | Path, folder: Path, revision: str | None, token: str | None, local_files_only: bool) -> Path:
    shown = printable(source)
    if folder.exists():
        raise InputError(f"{shown}: a file, not a folder that save_pretrained wrote; checkpoints are for `load`.")
    if not (isinstance(source, str) and _NAME.fullmatch(source)):
        raise InputError(
            f"{shown}: there is no such folder; give one, org/name of the Hub, or one of {', '.join(SHIPPED)}."
        )
    hub = _library()
    try:
        place = hub.snapshot_download(
            source, revision=revision, token=token, local_files_only=local_files_only, allow_patterns=list(FILES)
        )
    except Exception as error:  # its own, those of its HTTP library, and those of the disk
        raise InputError(f"{shown}: {_why(hub, error, revision, local_files_only)}") from error
    return Path(place)


def push(name: str, files: Mapping[str, bytes], *, private: bool, revision: str | None, token: str | None) -> str:
    """Upload the files of a saved model in one commit, by huggingface_hub's mixin.

    Args:
        name: ``org/name``; made if it is not there.
        files: from :func:`~ifmmin.sharing.writing.files_of`.
        private: whether a new one is.
        revision: branch.
        token: of the Hub; by default the one that is logged in.

    Returns:
        the address of the commit.

    Raises:
        InputError: it cannot be uploaded, or the extra ``hub`` is not installed.
    """
    shown = printable(name)
    if not _NAME.fullmatch(name):
        raise InputError(f"{shown}: no name on the Hub; give org/name.")
    hub = _library()
    from ifmmin.sharing.writing import write_files  # the results' modules, which reading needs not

    class Saved(hub.ModelHubMixin):  # type: ignore[misc, name-defined]
        def _save_pretrained(self, save_directory: Path) -> None:
            write_files(save_directory, files)

    try:
        # What an earlier push had and this one has not would be of other weights.
        gone = [each for each in FILES if each not in files] or None
        return str(Saved().push_to_hub(name, private=private, branch=revision, token=token, delete_patterns=gone))
    except Exception as error:
        raise InputError(f"{shown}: {_why(hub, error, revision, False)}") from error


def _library() -> Any:
    return require("huggingface_hub", 'pip install "ifmmin[hub]"')


def _why(hub: Any, error: Exception, revision: str | None, local_files_only: bool) -> str:
    """What the Hub's error is, and what to do."""
    errors = hub.errors
    if isinstance(error, errors.GatedRepoError):
        return "its owner gives access on request; ask for it on the Hub, and give your token (hf auth login)."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "neither a folder here nor a model on the Hub that you may see; see the name, or log in (hf auth login)."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the Hub has no revision {printable(revision, 60)} of it; give another."
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        if local_files_only:
            return "not fetched before; leave out local_files_only to ask the Hub."
        if hub.constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set, so the Hub is not asked; unset it, or give a folder."
        return "no folder here, and the Hub cannot be reached; see the network, or give a folder."
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"the Hub's library failed ({printable(lines[0] if lines else type(error).__name__, 200)}); try again."
