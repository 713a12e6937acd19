"""Fetch Debian packages with apt-get, into a folder that is looked into first."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from streamcodec.errors import CorpusError

_OWN_AUDIO = "use --from-folder DIR --category speech with your own audio"


def find_package(name: str, folder: Path) -> Path | None:
    """The newest file that `apt-get download name` left in `folder`, if any."""
    there = sorted(folder.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime)
    return there[-1] if there else None


def fetch_package(name: str, folder: Path) -> Path:
    """Path of the package `name` in `folder`, downloaded when it is not there yet.

    Raises
    ------
    CorpusError
        apt-get is not on this system, or it does not get the package.
    """
    there = find_package(name, folder)
    if there is not None:
        return there
    if shutil.which("apt-get") is None:
        raise CorpusError(f"apt-get is not on this system, {name} cannot be downloaded; {_OWN_AUDIO}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as beside:
        result = subprocess.run(
            ["apt-get", "-q", "download", name], cwd=beside, capture_output=True, text=True, check=False
        )
        got = find_package(name, Path(beside))
        if result.returncode or got is None:
            lines = [line for line in result.stderr.splitlines() if line.startswith("E:")]
            detail = lines[0] if lines else f"exit status {result.returncode}"
            raise CorpusError(
                f"apt-get could not download {name} ({detail}); try apt-get update, leave it out with "
                f"--exclude {name}, or {_OWN_AUDIO}"
            )
        os.replace(got, folder / got.name)
    return folder / got.name
