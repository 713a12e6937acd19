"""Output files that are either complete or not there."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for binary reading and writing that takes its name only when the block ends without an error.

    It is written beside `path` under another name and then moved, so that a reader sees the old file or the
    whole new one; on an error the old one stays.  A symbolic link is followed; an existing file's
    permissions are kept; a pipe or a device, such as /dev/null, is written to directly.

    Raises
    ------
    OSError
        The folder is missing or not writable, or `path` is a folder.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_output(folder / "a.scx") as file:
    ...     _ = file.write(b"codes")
    >>> [(item.name, item.read_bytes()) for item in folder.iterdir()]
    [('a.scx', b'codes')]
    """
    given = Path(path)
    if given.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; give the name of a file to write", str(path))
    if given.exists() and not given.is_file():
        with given.open("wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            part.chmod(target.stat().st_mode & 0o7777)
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; see `atomic_output`."""
    with atomic_output(path) as file:
        file.write(text.encode())
