"""Our codec, by its public API."""

from __future__ import annotations

import hashlib
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import numpy as np

from streamcodec import Codec
from streamcodec.checkpoint import DEFAULT_NAME
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs.coded import Coded
from streamcodec.metrics.waveforms import resampled


class Ours:
    """The codec of this package with the bundled weights, or with those in the file `path`.

    The frames of one clip are coded as one stream from a state of zeros; a packet is as long as on the wire,
    its last bits unused where the codes do not fill a byte.
    """

    def __init__(self, codec: Codec, kbps: float, identity: str) -> None:
        self._codec = codec
        self.config = codec.config
        self.bitrate_bps = 1000 * kbps
        self.n_codebooks = self.config.codebooks_for(self.bitrate_bps)
        self.codebook_size: int | None = self.config.codebook_size
        self.fingerprint = f"ours {_version()} {identity} {self.n_codebooks}"

    @classmethod
    def open(cls, path: str | None, kbps: float) -> Ours:
        """Load a weights file, or the bundled one.

        Raises
        ------
        CheckpointError
            The file cannot be used.
        BitrateError
            The model does not have this bitrate.
        """
        codec = Codec.load(path)
        weights = Path(path) if path else Path(str(files("streamcodec") / "assets" / DEFAULT_NAME))
        # model_id names what decodes; the encoder decides as much here.
        return cls(codec, kbps, hashlib.sha256(weights.read_bytes()).hexdigest())

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
