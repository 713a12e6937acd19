"""Lyra v2, by its own TFLite files and ai-edge-litert."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from streamcodec.errors import BitrateError, CheckpointError, MissingExtraError
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs.coded import Coded
from streamcodec.metrics.waveforms import resampled

FILES = ("soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite")
RATE_HZ = 16_000
FRAME_SAMPLES = 320
PACKET_BITS = {3.2: 64, 6.0: 120, 9.2: 184}
BITS_PER_QUANTIZER = 4
QUANTIZERS = PACKET_BITS[9.2] // BITS_PER_QUANTIZER


class Lyra:
    """16 kHz, 20 ms frames, 64, 120 or 184 bits a packet.

    The folder is `lyra/model_coeffs` of Lyra's repository.  The models keep their own state, so every clip starts
    with fresh interpreters.
    """

    def __init__(self, path: str | None, kbps: float) -> None:
        if kbps not in PACKET_BITS:
            raise BitrateError(f"Lyra at {kbps:g} kbps does not exist; choose {', '.join(map(str, PACKET_BITS))}")
        if path is None:
            raise CheckpointError(f"Lyra's TFLite files are not bundled; give their folder, lyra:FOLDER@{kbps:g}")
        self._folder = Path(path)
        for name in FILES:
            if not (self._folder / name).is_file():
                raise CheckpointError(f"{path} has no {name}; give the folder model_coeffs of Lyra's repository")
        try:
            from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise MissingExtraError("ai-edge-litert", "peers") from None
        self._interpreter: Any = Interpreter
        self._n_quantizers = PACKET_BITS[kbps] // BITS_PER_QUANTIZER
        self.codebook_size: int | None = None
        identity = hashlib.sha256(b"".join((self._folder / name).read_bytes() for name in FILES)).hexdigest()
        self.fingerprint = f"lyra 1 {identity} {self._n_quantizers}"

    def code(self, clip: Clip) -> Coded:
        """Encode and decode one clip."""
        waveform = resampled(clip.samples, clip.sample_rate_hz, RATE_HZ)
        n_frames = -(-len(waveform) // FRAME_SAMPLES)
        frames = np.zeros((n_frames, FRAME_SAMPLES), np.float32)
        frames.reshape(-1)[: len(waveform)] = waveform
        encoder, quantizer, decoder = (self._interpreter(str(self._folder / name), num_threads=1) for name in FILES)
        encoder.allocate_tensors()
        decoder.allocate_tensors()
        encode, decode = (quantizer.get_signature_runner(name) for name in ("encode", "decode"))
        count_shape = encode.get_input_details()["num_quantizers"]["shape"]
        count = np.full(count_shape, self._n_quantizers, np.int32)
        out = []
        for frame in frames:
            features = _run(encoder, frame)
            nearest = encode(input_frames=features.reshape(1, 1, -1), num_quantizers=count)["output_0"]
            indices = np.full((QUANTIZERS, 1, 1), -1, np.int32)
            indices[: self._n_quantizers, 0, 0] = np.reshape(nearest, -1)[: self._n_quantizers]
            out.append(_run(decoder, decode(encoding_indices=indices)["output_0"]).reshape(-1))
        decoded = np.concatenate(out)[: len(waveform)].astype(np.float32)
        return Coded(decoded, RATE_HZ, n_frames * self._n_quantizers * BITS_PER_QUANTIZER)


def _run(interpreter: Any, values: Any) -> Any:
    """The only output of a model for its only input, given in any shape."""
    details = interpreter.get_input_details()[0]
    interpreter.set_tensor(details["index"], np.asarray(values, np.float32).reshape(details["shape"]))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
