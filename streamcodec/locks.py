"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamcodec.errors import FolderInUseError

LOCK = ".in-use"
"""Name of the file that is locked; it holds the process id of the run."""

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def folder_in_use(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder`, which must exist, while the block runs.

    The operating system drops the lock when the process ends, however it ends.  On a file system without locks, and
    where the folder cannot be written, the block runs unprotected.

    Raises
    ------
    FolderInUseError
        Another run is in the folder.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with folder_in_use(folder):
    ...     [item.name for item in folder.iterdir()]
    ['.in-use']
    >>> list(folder.iterdir())
    []
    """
    path = folder / LOCK
    descriptor = _locked(path)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):  # while it is still locked, so that no other run's file goes
                path.unlink()
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """Descriptor of the locked file, or None where there are no locks."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return None
            raise
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _UNSUPPORTED - {errno.EACCES}:
                return None
            raise FolderInUseError(
                f"another run{_whose(path)} is working in {path.parent}; wait for it to end or choose another folder"
            ) from None
        if _is_still_there(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            return descriptor
        os.close(descriptor)  # its last owner removed it between our opening and locking


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _whose(path: Path) -> str:
    try:
        return f" (process {int(path.read_text())})"
    except (OSError, ValueError):
        return ""
