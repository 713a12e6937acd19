"""Our codec, by its public API."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from streamcodec.errors import CheckpointError
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs.coded import Coded
from streamcodec.metrics.waveforms import resampled


class Ours:
    """The codec of this package with the bundled weights, or with those in the file `path`.

    The frames of one clip are coded as one stream from a state of zeros; a packet is as long as on the wire,
    its last bits unused where the codes do not fill a byte.
    """

    def __init__(self, path: str | None, kbps: float, codec: Any = None) -> None:
        if path is not None and not Path(path).is_file():
            raise CheckpointError(f"{path} is not a weights file; give the path of a .safetensors file")
        if codec is None:
            from streamcodec import Codec  # type: ignore[attr-defined, unused-ignore]

            codec = Codec.load(path)
        self._codec = codec
        self.config = codec.config
        self.bitrate_bps = 1000 * kbps
        self.n_codebooks = self.config.codebooks_for(self.bitrate_bps)
        self.codebook_size: int | None = self.config.codebook_size
        identity = hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else codec.model_id
        self.fingerprint = f"ours {_version()} {identity} {self.n_codebooks}"

    def code(self, clip: Clip) -> Coded:
        """Encode and decode one clip."""
        rate_hz = self.config.sample_rate_hz
        waveform = resampled(clip.samples, clip.sample_rate_hz, rate_hz)
        codes = np.asarray(self._codec.tokenize(waveform, bitrate_bps=self.bitrate_bps), dtype=np.int16)
        decoded = np.asarray(self._codec.detokenize(codes), dtype=np.float32)
        payload_bits = 8 * self.config.packet_bytes(self.n_codebooks) * codes.shape[1]
        return Coded(decoded, rate_hz, payload_bits, codes)


def _version() -> str:
    try:
        return metadata.version("streamcodec")
    except metadata.PackageNotFoundError:
        return "source"
