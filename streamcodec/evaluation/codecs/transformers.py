"""EnCodec, DAC and Mimi, by transformers."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from streamcodec.errors import BitrateError, CheckpointError, MissingExtraError
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs.coded import Coded
from streamcodec.metrics.waveforms import resampled

HUB = {"encodec": "facebook/encodec_24khz", "dac": "descript/dac_24khz", "mimi": "kyutai/mimi"}
_CLASSES = {"encodec": "EncodecModel", "dac": "DacModel", "mimi": "MimiModel"}


class TransformersCodec:
    """A published neural codec, whole clips at a time, from a folder of weights or from the hub.

    The payload is counted as bits per code, without EnCodec's optional entropy coder.
    """

    def __init__(self, name: str, path: str | None, kbps: float) -> None:
        try:
            import torch
            import transformers  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise MissingExtraError(error.name or "transformers", "peers") from None
        place = path or HUB[name]
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            model = getattr(transformers, _CLASSES[name]).from_pretrained(place)
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise CheckpointError(
                f"no weights for {name} at {place}; give their folder, {name}:FOLDER@{kbps:g} ({reason})"
            ) from None
        torch.set_num_threads(1)
        self._torch = torch
        self._model: Any = model.eval()
        self._name = name
        self._kbps = kbps
        config = self._model.config
        self.rate_hz = int(config.sampling_rate)
        self.codebook_size: int | None = int(config.codebook_size)
        self.bits_per_code = (self.codebook_size - 1).bit_length()
        self.n_codebooks = self._codebooks()
        weights = hashlib.sha256()
        for key, array in sorted(self._model.state_dict().items()):
            weights.update(key.encode() + array.cpu().numpy().tobytes())
        self.fingerprint = f"{name} {transformers.__version__} {weights.hexdigest()} {self.n_codebooks}"

    def _codebooks(self) -> int:
        config = self._model.config
        if self._name == "dac":
            frame_rate_hz = self.rate_hz / float(np.prod(config.downsampling_ratios))
            available = int(config.n_codebooks)
        else:
            frame_rate_hz = float(config.frame_rate)
            available = int(config.num_quantizers)
        step_kbps = frame_rate_hz * self.bits_per_code / 1000
        if self._name == "encodec":
            allowed = [float(rate) for rate in config.target_bandwidths]
        else:
            allowed = [step_kbps * count for count in range(1, available + 1)]
        nearest = min(allowed, key=lambda rate: abs(rate - self._kbps))
        # Published names round the rate: Mimi's 1.1 kbps is 8 codebooks of 0.1375.
        if abs(nearest - self._kbps) > 0.02 * self._kbps:
            rates = ", ".join(f"{rate:.4g}" for rate in allowed)
            raise BitrateError(f"this {self._name} has no {self._kbps:g} kbps; choose from {rates}")
        return round(nearest / step_kbps)

    def code(self, clip: Clip) -> Coded:
        """Encode and decode one clip."""
        waveform = resampled(clip.samples, clip.sample_rate_hz, self.rate_hz)
        model, torch = self._model, self._torch
        with torch.inference_mode():
            x = torch.from_numpy(waveform)[None, None]
            if self._name == "encodec":
                coded = model.encode(x, bandwidth=self._kbps)
                decoded = model.decode(coded.audio_codes, coded.audio_scales)[0]
                codes = coded.audio_codes[0, 0]
            elif self._name == "dac":
                codes = model.encode(x, n_quantizers=self.n_codebooks).audio_codes[0]
                decoded = model.decode(audio_codes=codes[None]).audio_values
            else:
                codes = model.encode(x, num_quantizers=self.n_codebooks).audio_codes[0]
                decoded = model.decode(codes[None]).audio_values
        out = decoded.reshape(-1)[: len(waveform)].float().numpy()
        kept = codes.cpu().numpy().astype(np.int16)
        return Coded(out, self.rate_hz, kept.size * self.bits_per_code, kept)
