"""Where compiled code is kept, so that the second start is fast.

In order: Numba's own setting (NUMBA_CACHE_DIR) if the user made it; the user's cache folder (~/.cache, on macOS
~/Library/Caches, on Windows AppData/Local); a private folder in the system's temporary folder.  If none can be
written, code is compiled anew in each process.  The folder's name holds a digest of the kernels' source, so a new
version never runs an old version's code.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from getpass import getuser
from pathlib import Path
from typing import Any

import numba

from streamcodec_kernels._simd import jit

_settings: Any = numba.config


def _source_digest() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _candidates() -> Iterator[Path]:
    if _settings.CACHE_DIR:
        yield Path(_settings.CACHE_DIR)
        return
    try:
        home = Path.home()
        user = getuser()
    except (RuntimeError, OSError, KeyError):
        return
    if sys.platform == "darwin":
        yield home / "Library" / "Caches" / "streamcodec"
    elif sys.platform == "win32":
        yield home / "AppData" / "Local" / "streamcodec"
    else:
        yield home / ".cache" / "streamcodec"
    yield Path(tempfile.gettempdir()) / f"streamcodec-{user}"


def _usable(folder: Path) -> bool:
    """Whether the folder can be written, and by nobody else: what is in it will be run."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sys.platform != "win32":
            status = folder.stat()
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                return False
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@cache
def cache_folder() -> Path | None:
    """Folder of compiled code, made if need be; None when there is nowhere to write."""
    name = f"kernels-{_source_digest()}"
    return next((folder / name for folder in _candidates() if _usable(folder / name)), None)


def cached_jit(function: Callable[..., Any]) -> Any:
    """`jit`, its result kept in `cache_folder`."""
    folder = cache_folder()
    if folder is None:
        return jit(function)
    before = _settings.CACHE_DIR
    _settings.CACHE_DIR = str(folder)
    try:
        return numba.njit(nogil=True, error_model="numpy", boundscheck=False, cache=True)(function)
    finally:
        _settings.CACHE_DIR = before
