"""Scores kept between runs, by the content of what they were made from."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamcodec.files import write_bytes


@dataclass(frozen=True)
class Row:
    """One clip through one codec, compared at `sample_rate_hz`."""

    codec: str
    clip: str
    category: str
    sample_rate_hz: int
    duration_s: float
    kbps: float
    bandwidth_hz: float
    scores: dict[str, float | None]
    codebook_size: int | None = None
    codes: NDArray[np.int16] | None = field(default=None, repr=False, compare=False)


class ScoreCache:
    """Rows on disk, one small file each; with no folder, nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @staticmethod
    def key(*parts: str) -> str:
        """Hash of everything that a row depends on."""
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def get(self, key: str, codec: str, clip: str) -> Row | None:
        """The row under `key`, named `codec` and `clip`; None if it is not there or cannot be read."""
        if self._folder is None:
            return None
        try:
            content = io.BytesIO(self._path(key).read_bytes())
            with np.load(content, allow_pickle=False) as stored:
                data = json.loads(str(stored["row"]))
                codes = stored.get("codes")
            return Row(**{**data, "codec": codec, "clip": clip}, codes=codes)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def put(self, key: str, row: Row) -> None:
        """Keep `row`; a folder that cannot be written to keeps nothing."""
        if self._folder is None:
            return
        data = {name: value for name, value in vars(row).items() if name != "codes"}
        arrays: dict[str, NDArray[np.generic]] = {"row": np.array(json.dumps(data))}
        if row.codes is not None:
            arrays["codes"] = row.codes
        path = self._path(key)
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content.getbuffer())

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / key[:2] / f"{key}.npz"
