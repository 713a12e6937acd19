"""EnCodec, DAC and Mimi, by transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from streamcodec.errors import BitrateError, CheckpointError, MissingExtraError
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs.coded import Coded
from streamcodec.metrics.waveforms import Float32, resampled

HUB = {"encodec": "facebook/encodec_24khz", "dac": "descript/dac_24khz", "mimi": "kyutai/mimi"}
_CLASSES = {"encodec": "EncodecModel", "dac": "DacModel", "mimi": "MimiModel"}


class TransformersCodec:
    """A published neural codec, whole clips at a time, from a folder of weights or from the hub.

    The payload is counted as bits per code, without EnCodec's optional entropy coder.
    """

    def __init__(self, name: str, path: str | None, kbps: float, model: Any = None) -> None:
        transformers, torch = _packages()
        place = path or HUB[name]
        if model is None:
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
        self.model: Any = model.eval()
        self._name = name
        self._kbps = kbps
        config = self.model.config
        self.rate_hz = int(config.sampling_rate)
        self.codebook_size: int | None = int(config.codebook_size)
        self.bits_per_code = (self.codebook_size - 1).bit_length()
        self.n_codebooks = self._codebooks()

    @property
    def fingerprint(self) -> str:
        """Package version, weights and bitrate."""
        weights = hashlib.sha256()
        for key, array in sorted(self.model.state_dict().items()):
            weights.update(key.encode() + array.cpu().numpy().tobytes())
        version = self._torch.__version__
        return f"{self._name} {version} {weights.hexdigest()} {self.n_codebooks}"

    def _codebooks(self) -> int:
        config = self.model.config
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

    def encode(self, waveform: Float32) -> Any:
        """What `decode` takes, of a clip float32 [T] at `rate_hz`."""
        x = self._torch.from_numpy(waveform)[None, None]
        with self._torch.inference_mode():
            if self._name == "encodec":
                return self.model.encode(x, bandwidth=self._kbps)
            count = {"dac": "n_quantizers", "mimi": "num_quantizers"}[self._name]
            return self.model.encode(x, **{count: self.n_codebooks})

    def decode(self, coded: Any) -> Float32:
        """Samples float32 [T] of what `encode` made."""
        with self._torch.inference_mode():
            if self._name == "encodec":
                decoded = self.model.decode(coded.audio_codes, coded.audio_scales)[0]
            else:
                decoded = self.model.decode(audio_codes=coded.audio_codes).audio_values
        samples: Float32 = decoded.reshape(-1).float().numpy()
        return samples

    def code(self, clip: Clip) -> Coded:
        """Encode and decode one clip."""
        waveform = resampled(clip.samples, clip.sample_rate_hz, self.rate_hz)
        coded = self.encode(waveform)
        codes = coded.audio_codes.reshape(-1, coded.audio_codes.shape[-1]).cpu().numpy().astype(np.int16)
        return Coded(self.decode(coded)[: len(waveform)], self.rate_hz, codes.size * self.bits_per_code, codes)

    @contextmanager
    def counted_macs(self) -> Iterator[Callable[[], int]]:
        """Count the multiply-accumulates of convolutions, linear layers and LSTMs that run inside."""
        nn = self._torch.nn
        total = 0

        def hook(module: Any, inputs: Any, output: Any) -> None:
            nonlocal total
            if isinstance(module, nn.Conv1d):
                total += output.numel() * module.in_channels // module.groups * module.kernel_size[0]
            elif isinstance(module, nn.ConvTranspose1d):
                total += inputs[0].numel() * module.out_channels // module.groups * module.kernel_size[0]
            elif isinstance(module, nn.Linear):
                total += output.numel() * module.in_features
            else:
                steps = inputs[0].numel() // inputs[0].shape[-1]
                total += steps * sum(weight.numel() for name, weight in module.named_parameters() if "weight" in name)

        kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.Linear, nn.LSTM)
        handles = [m.register_forward_hook(hook) for m in self.model.modules() if isinstance(m, kinds)]
        try:
            yield lambda: total
        finally:
            for handle in handles:
                handle.remove()


def random_model(name: str) -> Any:
    """The published 24 kHz shape of EnCodec, DAC or Mimi with random weights."""
    transformers, torch = _packages()
    torch.manual_seed(0)
    shape = {}
    if name == "dac":
        strides = [2, 4, 5, 8]
        shape = {
            "sampling_rate": 24_000, "n_codebooks": 32, "downsampling_ratios": strides,
            "upsampling_ratios": strides[::-1],
        }  # fmt: skip
    config = getattr(transformers, _CLASSES[name].replace("Model", "Config"))(**shape)
    return getattr(transformers, _CLASSES[name])(config)


def _packages() -> tuple[Any, Any]:
    try:
        import torch
        import transformers  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtraError(error.name or "transformers", "peers") from None
    return transformers, torch
