"""Where compiled code is kept, so that the second start is fast.

In order: Numba's own setting (NUMBA_CACHE_DIR) if the user made it; the user's cache folder (~/.cache, on macOS
~/Library/Caches, on Windows AppData/Local); a private folder in the system's temporary folder.  The folder's name
holds a digest of the kernels' source, so a new version never runs an old version's code.

What is kept is a convenience.  Where no folder can be written, or others could write to it, code is compiled anew in
each process; a damaged file is compiled anew and replaced.  Numba's own cache raises what goes wrong instead, and LLVM
ends the process at damaged code, so the files here are our own: a SHA-256, then Numba's pickle of the function.
"""

from __future__ import annotations

import logging
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import numba
from numba.core import serialize as _serialize
from numba.core.compiler import CompileResult as _CompileResult

_settings: Any = numba.config
_compile_result: Any = _CompileResult
_pickling: Any = _serialize
_DIGEST_BYTES = sha256().digest_size
_POSIX = sys.platform != "win32"
_has_warned = False


def _source_digest() -> str:
    """Digest of the kernels' source and of what compiles it.

    Raises
    ------
    OSError
        The source is not there to be read.
    """
    digest = sha256(f"{sys.version} {numba.__version__} {llvmlite.__version__}".encode())
    paths = sorted(Path(__file__).parent.rglob("*.py"))
    if not paths:
        raise FileNotFoundError("the kernels' source is not installed as files")
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _candidates() -> Iterator[Path]:
    if _settings.CACHE_DIR:
        yield Path(_settings.CACHE_DIR).absolute()
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if home.is_absolute():
        if sys.platform == "darwin":
            yield home / "Library" / "Caches" / "streamcodec"
        elif sys.platform == "win32":
            yield home / "AppData" / "Local" / "streamcodec"
        else:
            yield home / ".cache" / "streamcodec"
    try:
        temporary = Path(tempfile.gettempdir()).absolute()
    except OSError:
        return
    yield temporary / (f"streamcodec-{os.getuid()}" if sys.platform != "win32" else "streamcodec")


def _is_private(status: os.stat_result) -> bool:
    return not _POSIX or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


def _is_safe_above(path: Path) -> bool:
    """Whether nobody but the user and root can put something else in the place of what is in this folder or link."""
    status = path.lstat()
    if status.st_uid not in (0, os.getuid()):
        return False
    return stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o022 or bool(status.st_mode & stat.S_ISVTX)


def _make(folder: Path) -> None:
    """`mkdir -p`, but every folder made is the user's alone, whatever the umask."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def refusal(folder: Path) -> str | None:
    """Make the folder if need be; why it cannot be used, None if it can.

    What is in it will be run, so only the user and root may be able to write it, or to put another in its place.
    """
    try:
        _make(folder)
        real = folder.resolve()
        if not _is_private(real.stat()):
            return "it belongs to another user, or others may write to it"
        above = {*folder.parents, *real.parents, *(path for path in (folder,) if path.is_symlink())}
        if _POSIX and not all(map(_is_safe_above, above)):
            return "it is in a folder, or behind a link, that others may change"
        with tempfile.TemporaryFile(dir=real):
            return None
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return getattr(error, "strerror", None) or str(error)


@cache
def cache_folder() -> Path | None:
    """Folder of compiled code, made if need be; None when there is nowhere to write."""
    try:
        name = f"kernels-{_source_digest()}"
    except OSError as error:
        warn(f"compiled code is not kept ({error}), every start compiles anew")
        return None
    refused: list[str] = []
    for folder in _candidates():
        why = refusal(folder / name)
        if why is None:
            if refused and _settings.CACHE_DIR:
                warn(f"{refused[0]}; compiled code is kept in {folder} instead")
            return (folder / name).resolve()
        refused.append(f"{folder} cannot keep compiled code: {why}")
    warn("; ".join([*refused, "every start compiles anew; set NUMBA_CACHE_DIR to a folder that only you can write"]))
    return None


def warn(text: str) -> None:
    """Log the first of these texts; it is one line, and more of them would say nothing new."""
    global _has_warned
    if not _has_warned:
        _has_warned = True
        logging.getLogger("streamcodec_kernels").warning("%s", " ".join(text.split()))


def _read(path: Path) -> bytes | None:
    """What a file of the cache holds; None if it is absent, damaged or somebody else's."""
    try:
        with path.open("rb") as file:
            if not _is_private(os.fstat(file.fileno())):
                return None
            content = file.read()
    except OSError:
        return None
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return payload if sha256(payload).digest() == digest else None


def _write(path: Path, payload: bytes) -> None:
    """Write a whole file, or none.

    Raises
    ------
    OSError
        There is no room, or the folder cannot be written any more.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(sha256(payload).digest() + payload)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


class _Kept:
    """What Numba asks for a function's compiled code: its own cache, but nothing that goes wrong here is an error."""

    def __init__(self, function: Any) -> None:
        self._function = function

    @property
    def cache_path(self) -> str | None:
        folder = cache_folder()
        return None if folder is None else str(folder)

    def _path(self, signature: Any, codegen: Any) -> Path | None:
        """File of the function for these types and this processor."""
        folder = cache_folder()
        if folder is None:
            return None
        code = self._function.__code__
        key = (self._function.__module__, self._function.__qualname__, code.co_code, signature, codegen.magic_tuple())
        return folder / f"{self._function.__name__}-{sha256(repr(key).encode()).hexdigest()[:24]}.bin"

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Compiled function for the types, None if it is not kept."""
        target.refresh()
        path = self._path(signature, target.codegen())
        payload = None if path is None else _read(path)
        if payload is None:
            return None
        try:
            return _compile_result._rebuild(target, *pickle.loads(payload))
        except Exception:  # another program's file of the same name: anything may be in it, so anything may be raised
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a function just compiled; says once why that cannot be done."""
        path = self._path(signature, result.codegen)
        if path is None or result.library.has_dynamic_globals or not all(loop.can_cache for loop in result.lifted):
            return
        try:
            _write(path, _pickling.dumps(result._reduce()))
        except Exception as error:  # a full disk, or a pickle that fails: the function itself runs
            warn(f"{path.parent} cannot keep compiled code, which later starts compile anew: {error}")

    def flush(self) -> None:
        """Nothing: what is recompiled is replaced."""


def cached_jit(function: Callable[..., Any], **options: Any) -> Any:
    """`jit`, with more of `numba.njit`'s options, its result kept in `cache_folder`."""
    compiled: Any = numba.njit(nogil=True, error_model="numpy", boundscheck=False, **options)(function)
    compiled._cache = _Kept(function)
    return compiled
