"""Writing files so that a kill or a full disk leaves the old file or the new one, never half of one."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from datamodules.errors import InputError
from datamodules.text import printable

_LOCK = ".lock"
_TEMPORARY = ".ifmmin-"


def expanded(path: str | Path) -> Path:
    """``path`` with ``~`` replaced by the home folder.

    Raises:
        InputError: there is no such user, or it is not the name of a file: it has a NUL, or is not UTF-8.
    """
    try:
        str(path).encode("utf-8")
        found = Path(path).expanduser()
    except (RuntimeError, UnicodeEncodeError) as error:
        what = "no such user's home" if isinstance(error, RuntimeError) else "not UTF-8"
        raise InputError(f"{printable(path)}: {what}; give another path.") from error
    if "\0" in str(path):
        raise InputError(f"{printable(path)}: has a NUL character, so it names no file; give another path.")
    return found


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, synced and moved onto it when the block ends without an error.

    Beside, not in $TMPDIR: a move from another file system is a copy, which a kill leaves half done.

    Raises:
        OSError: the folder cannot be written or the disk is full; it names ``path``, which is as before, and the
            temporary file is removed.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name keeps its ending, because matplotlib and pyarrow choose their format by it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_TEMPORARY}{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        # mkstemp makes private files; a result is as readable as any other file the user makes.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        own = error.filename is not None and Path(error.filename).name.startswith(_TEMPORARY)
        if error.errno is not None and (own or error.filename is None):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the disk hold what was written: a rename may reach it before the content does."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write ``content`` atomically; the path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` as UTF-8, atomically; the path."""
    return write_bytes(path, text.encode("utf-8"))


def check_writable(path: str | Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold.

    Raises:
        OSError: its folder cannot be made or written; it names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in ``folder``; only for its one user."""
    for left in folder.glob(f"{_TEMPORARY}*"):
        if left.is_file():
            left.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, what: str, shared: bool = False) -> Iterator[None]:
    """Hold ``folder`` for this process; the system lets go of it when the process ends, however it ends.

    Args:
        folder: an existing one.
        what: what it is, for the message: ``"run"``.
        shared: whether others may hold it too, as long as they share it.

    Raises:
        InputError: another process holds it; it names the process.
    """
    file = lock(folder, what, shared)
    try:
        yield
    finally:
        if file is not None:
            file.close() if shared else unlock(file)


def lock(folder: Path, what: str, shared: bool = False) -> IO[str] | None:
    """Hold ``folder`` as :func:`locked` does, until :func:`unlock`; None where the system has no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    path = folder / _LOCK
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = printable(file.readline().strip()) or "another process"
            file.close()
            raise InputError(
                f"{folder}: this {what} is in use by {holder}; wait for it, stop it, or name another folder."
            ) from None
        except OSError:  # a file system without locks
            file.close()
            return None
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            break
        file.close()  # its last holder removed it between our two calls
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def unlock(file: IO[str]) -> None:
    """Let go of a folder; its lock file is removed first, while nobody else can hold it."""
    Path(file.name).unlink(missing_ok=True)
    file.close()
