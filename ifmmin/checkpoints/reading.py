"""Reading checkpoints: nothing in them is executed, and no more memory is taken than the file has."""

from __future__ import annotations

import mmap
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from datamodules.errors import InputError
from datamodules.files import expanded
from datamodules.text import printable
from ifmmin.checkpoints.contents import ContentError, check_contents

LARGEST_STRUCTURE = 2**24
"""Bytes of a checkpoint without its tensors that are read; ours take some 100 kB."""

_BUFFER = b"bytearray\n"
"""How a pickle names the class, in the one opcode that torch reads names by."""


def load_safely(path: str | Path, legacy: bool = False) -> Any:
    """Read a file that ``torch.save`` wrote, executing nothing in it.

    Args:
        path: of the file.
        legacy: read the format before PyTorch 1.6 too, which the published code's files may have.

    Raises:
        InputError: the file is missing, truncated, no such file, compressed, or contains more than plain data.
    """
    path = expanded(path)
    shown = printable(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{shown}: there is no such checkpoint file.") from error
    except OSError as error:
        raise InputError(f"{shown}: cannot be read ({error.strerror}); see that the path is right.") from error
    if stat.S_ISDIR(mode):
        from ifmmin.sharing.folder import is_saved  # which imports this module

        if is_saved(path):
            raise InputError(
                f"{shown}: a saved model, which Predictor.load, test, validate, predict and save read; here the .ckpt "
                "file is needed that it was saved from."
            )
        raise InputError(f"{shown}: there is no such checkpoint file, but a folder; name the .ckpt file in it.")
    if not stat.S_ISREG(mode):  # opening a FIFO would wait for ever
        raise InputError(f"{shown}: there is no such checkpoint file, but a pipe or a device; name a .ckpt file.")
    try:
        _check_container(path, legacy)
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(f"{shown}: may not be read; give yourself the permission.") from error
    except ContentError as error:
        raise InputError(f"{shown}: not a readable checkpoint: {error}. Take another copy.") from error
    except Exception as error:  # torch raises many types here, none of them documented
        # Its own messages are not passed on: they advise to load the file unsafely.
        raise InputError(
            f"{shown}: not a readable checkpoint of tensors and plain values; "
            "it is truncated, damaged, or contains code, which is never run. Take another copy."
        ) from error


def _check_container(path: Path, legacy: bool) -> None:
    """Refuse a file whose parts would take more memory than it has bytes, before they are read.

    Raises:
        ContentError: saying what is wrong.
        zipfile.BadZipFile: it is truncated, or of another format.
    """
    size = path.stat().st_size
    if not size:
        raise ContentError("it is empty, as an interrupted copy leaves it")
    if legacy and not zipfile.is_zipfile(path):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check_pickle(content.find(_BUFFER) >= 0)
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(each.compress_type != zipfile.ZIP_STORED or each.compress_size < each.file_size for each in entries):
            raise ContentError("it is compressed, which torch.save never does, and may unpack to any size")
        if sum(each.file_size for each in entries) > size:
            raise ContentError(f"it declares more data than its {size} bytes")
        pickles = [each for each in entries if each.filename.endswith(".pkl")]
        if any(each.file_size > LARGEST_STRUCTURE for each in pickles):
            raise ContentError(f"its structure without tensors is larger than {LARGEST_STRUCTURE} bytes")
        _check_pickle(any(_BUFFER in archive.read(each) for each in pickles))


def _check_pickle(has_buffer: bool) -> None:
    """Refuse a pickle that makes a buffer of any size by its number alone, as torch lets one do.

    Raises:
        ContentError: it does.
    """
    if has_buffer:
        raise ContentError("it makes buffers of any size, which no checkpoint needs")


def read_checkpoint(path: str | Path, needs_data: bool = True) -> dict[str, Any]:
    """A checkpoint that this library wrote, everything in it that scoring reads checked.

    Args:
        path: of the file.
        needs_data: refuse one without a record of its training data, as a trainer without our datamodule writes.

    Raises:
        InputError: it cannot be read, something else wrote it, or its weights or statistics are no finite numbers.
    """
    path = expanded(path)
    checkpoint = load_safely(path)
    try:
        check_contents(checkpoint, path.stat().st_size, needs_data)
    except ContentError as error:
        raise InputError(
            f"{printable(path)}: not a checkpoint that a fit of this library wrote: {error}. Take another copy."
        ) from error
    return dict(checkpoint)


def trained_model(record: Mapping[str, Any]) -> str:
    """The registry name of the model that wrote a checkpoint.

    Args:
        record: the checkpoint's ``"ifmmin"`` entry. Up to 0.1.0 it has the class's module path, of which the
            last part is the name.
    """
    return str(record.get("model", "unknown")).rpartition(".")[2]
