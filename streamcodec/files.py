"""Output files that are either complete or not there; the standard streams as files; names as text."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

STDIN, STDOUT = Path("/dev/stdin"), Path("/dev/stdout")
"""Standard input and output as paths; every function here takes them, on every system."""

_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_PART_BYTES = 100
_NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS)
_ESCAPED = ("Cc", "Cs", "Zl", "Zp")
_TURNS_TEXT = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_parts: set[Path] = set()


def printable(text: object) -> str:
    r"""Text for one line of a terminal: what steers it, turns text or is not UTF-8, as backslash escapes.

    Examples
    --------
    >>> printable("a\nb\x1b[31m 会議.wav")
    'a\\nb\\x1b[31m 会議.wav'
    """
    return "".join(
        _escaped(char) if unicodedata.category(char) in _ESCAPED or _TURNS_TEXT.match(char) else char
        for char in str(text)
    )


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8, as the file system's names bring it
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def descriptor(path: str | os.PathLike[str]) -> int | None:
    """Number of the open stream that a path such as /dev/stdout or /dev/fd/3 stands for; None for other paths."""
    name = Path(path).as_posix()
    number = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d+)", name)
    return int(number[1]) if number else _STREAMS.get(name)


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a standard stream, a pipe or a device."""
    return descriptor(path) is not None or (
        os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
    )


def open_input(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file, a pipe or a standard stream for binary reading, once."""
    number = descriptor(path)
    return open(path, "rb") if number is None else os.fdopen(_duplicate(number, Path(path), to_read=True), "rb")


def _duplicate(number: int, given: Path, *, to_read: bool) -> int:
    """Another descriptor of an open stream; an error names a stream that is closed, or open the other way only."""
    try:
        if to_read:
            os.read(number, 0)
        else:
            os.write(number, b"")
        return os.dup(number)
    except OSError as error:
        way = "reading" if to_read else "writing"
        text = f"is not open for {way}" if error.errno == errno.EBADF else error.strerror
        raise OSError(error.errno, text, str(given)) from None


def check_replaceable(
    target: str | os.PathLike[str],
    source: str | os.PathLike[str] | None,
    replaceable: Callable[[Path], bool],
    otherwise: str,
    *,
    force: bool = False,
) -> None:
    """Refuse a target that is the source, or an old file that somebody may miss.

    Parameters
    ----------
    target, source : path
        Pipes, devices and empty files may always be written to.
    replaceable : callable
        Whether an old file, which is not empty, may be replaced without being asked.
    otherwise : str
        What an old file is that may not.
    force : bool
        Replace any file but the source.

    Raises
    ------
    FileExistsError
        `target` is `source`, by whatever name, or must not be replaced.
    """
    there, given = _status(target), Path(target)
    if there is None or not stat.S_ISREG(there.st_mode):
        return
    origin = None if source is None else _status(source)
    if origin is not None and os.path.samestat(there, origin):
        raise FileExistsError(errno.EEXIST, "is the input, too; give the output another name", str(target))
    if there.st_size and not force and descriptor(given) is None and not replaceable(given):
        text = f"exists and {otherwise}; give another name, or --force to replace it"
        raise FileExistsError(errno.EEXIST, text, str(target))


def _status(path: str | os.PathLike[str]) -> os.stat_result | None:
    number = descriptor(path)
    try:
        return os.stat(path) if number is None else os.fstat(number)
    except FileNotFoundError:
        return None


@contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for binary reading and writing that takes its name only when the block ends without an error.

    It is written beside `path` under another name and then moved, so that a reader sees the old file or the
    whole new one; on an error the old one stays.  A symbolic link is followed; an existing file's
    permissions are kept; a pipe, a device such as /dev/null, or a standard stream is written to directly, and what is
    written to a stream cannot seek.

    Raises
    ------
    OSError
        The folder is missing or not writable, `path` is a folder or write-protected, or there is no room; the
        error's filename is `path` or its folder, also when writing to the file fails.

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
    number, there = descriptor(given), _status(given)
    if number is None and there is not None and stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder; give the name of a file to write", str(path))
    if number is not None or (there is not None and not stat.S_ISREG(there.st_mode)):
        stream = given if number is None else _duplicate(number, given, to_read=False)
        with _writing(_Output(stream, "wb", given)) as file:
            yield file
        return
    if there is not None and not os.access(given, os.W_OK):
        raise PermissionError(errno.EACCES, "is write-protected; give another name", str(path))
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{_shortened(target.name)}.{secrets.token_hex(4)}.part")
    _parts.add(part)
    try:
        with _writing(_created(part, given, target)) as file:
            yield file
            with _named(given):
                file.flush()
                if there is not None:
                    part.chmod(stat.S_IMODE(there.st_mode))
                os.fsync(file.fileno())
        with _named(given):
            os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    finally:
        _parts.discard(part)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write a file, whole or not at all; see `atomic_output`."""
    with atomic_output(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; see `atomic_output`."""
    write_bytes(path, text.encode())


def append_text(path: str | os.PathLike[str], text: str) -> None:
    """Add text in UTF-8 to the end of a file, which is made if it is not there; errors name it."""
    with _writing(_Output(Path(path), "ab", Path(path))) as file:
        file.write(text.encode())


def remove_partial_files() -> None:
    """Remove what `atomic_output` has begun: for a process that is about to end at once."""
    for part in list(_parts):
        with suppress(OSError):
            part.unlink()


class _Output(io.FileIO):
    """A file open for writing, whose errors name the path that the user gave."""

    def __init__(self, file: Path | int, mode: str, given: Path) -> None:
        self._given, self._stream = given, isinstance(file, int)
        with _named(given):
            super().__init__(file, mode)

    def write(self, data: Any) -> int:
        with _named(self._given):
            return super().write(data)

    def close(self) -> None:
        with _named(self._given):
            super().close()

    def seekable(self) -> bool:
        return not self._stream and super().seekable()


@contextmanager
def _writing(raw: _Output) -> Iterator[BinaryIO]:
    """Buffer a file for the time of a block; what is in the buffer when the block fails is thrown away."""
    file = io.BufferedRandom(raw) if raw.readable() else io.BufferedWriter(raw)
    try:
        yield cast(BinaryIO, file)
        file.close()
    except BaseException:
        with suppress(OSError):
            raw.close()
        raise


def _created(part: Path, given: Path, target: Path) -> _Output:
    """Create the partial file; if that fails, name the file or the folder that the user gave."""
    try:
        return _Output(part, "x+b", given)
    except OSError as error:
        folder = str(target.parent if given.is_symlink() else given.parent)
        if error.errno == errno.ENOENT:
            text = f"there is no such folder to write {given.name} to; make it first"
            raise FileNotFoundError(errno.ENOENT, text, folder) from None
        if error.errno in _NO_WRITING:
            text = f"{error.strerror}; {given.name} cannot be written to this folder"
            raise PermissionError(error.errno, text, folder) from None
        raise


@contextmanager
def _named(given: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _renamed(error, given) from None


def _renamed(error: OSError, given: Path) -> OSError:
    return OSError(error.errno, error.strerror or str(error), str(given))


def _shortened(name: str) -> str:
    """The start of a name, cut between characters, so that a longer name made from it is legal on every file system."""
    while len(os.fsencode(name)) > _PART_BYTES:
        name = name[:-1]
    return name
