"""Where Triton keeps the kernels it compiled: where the user or Triton wants it, unless that stops the work.

Triton has no cache in memory: without a folder to write it compiles nothing, and without a home it takes one named "~"
in the working folder.  It runs what it finds, so a folder that others may change is not taken either.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from streamcodec_kernels._cache import cache_folder, refusal, warn


def choose_triton_cache() -> None:
    """Set TRITON_CACHE_DIR for this process if the folder it or Triton names cannot be used; before the first launch.

    The other folder is in `cache_folder`, or a temporary one for this process if there is none.
    """
    if os.environ.get("TRITON_CACHE_MANAGER"):
        return
    given = os.environ.get("TRITON_CACHE_DIR", "").strip()
    default = Path(os.environ.get("TRITON_HOME") or os.path.expanduser("~/")) / ".triton" / "cache"
    folder = Path(given).absolute() if given else default
    why = refusal(folder) if folder.is_absolute() else "there is no home"
    if why is None:
        return
    if given:
        warn(f"TRITON_CACHE_DIR is not used, {folder} cannot keep compiled code: {why}")
    kept = cache_folder()
    if kept is None:
        try:
            kept = Path(tempfile.mkdtemp(prefix="streamcodec-"))
        except OSError:
            return  # Triton itself says what it lacks
        atexit.register(shutil.rmtree, kept, ignore_errors=True)
    os.environ["TRITON_CACHE_DIR"] = str(kept / "triton")
