"""Ways to step B streams on one device: ours, and the same model in torch with the same buffers and copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from streamcodec.bench.reference import decode_clip, encode_clip
from streamcodec.bench.search import Ticks
from streamcodec.bench.timing import AUDIO_ERROR, CHECK_FRAMES, CODES_AGREE, drawn_frames
from streamcodec.checkpoint import Arrays
from streamcodec.config import CodecConfig
from streamcodec.engine import Float32, Int16
from streamcodec.engine.batch import StreamBatch
from streamcodec.engine.batch.buffers import Buffers
from streamcodec.engine.batch.graph import captured
from streamcodec.errors import BackendError
from streamcodec.nn.model import CodecModel

BITRATE_SHARE = 2 / 3
"""Codebooks that every stream uses, of all."""
_WARM_UP_TICKS = 5


class Stepper(Protocol):
    """B streams: write `frames` and `received`, step, read `codes` and `heard`."""

    frames: Float32
    received: Int16
    codes: Int16
    heard: Float32

    def step(self) -> object:
        """Code one frame of every stream and wait for it."""
        ...


class TorchNetwork:
    """The torch modules' step as one function of tensors, for any number of streams.

    Parameters
    ----------
    config, arrays
        The model.
    device : torch.device
        Where to compute.
    compiled : bool
        Through torch.compile, anew for every number of streams: with that left open, it compiles for many minutes.
    """

    def __init__(self, config: CodecConfig, arrays: Arrays, device: torch.device, compiled: bool = False) -> None:
        self.config, self.device = config, device
        self.count = codebooks(config)
        model = CodecModel(config)
        model.load_arrays(arrays)
        self.model = model.eval().requires_grad_(False).to(device)
        self._compiled = compiled

    def function(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The step for one number of streams: frames, received codes and both states to codes and frames."""
        encode: Callable[[Tensor, Tensor], Tensor] = self._encode
        decode: Callable[[Tensor, Tensor], Tensor] = self._decode
        if self._compiled:
            torch.compiler.reset()  # one function is compiled but a few times, then runs as it is
            encode, decode = torch.compile(encode, dynamic=False), torch.compile(decode, dynamic=False)

        def step(
            frames: Tensor, received: Tensor, encoder_state: Tensor, decoder_state: Tensor
        ) -> tuple[Tensor, Tensor]:
            return encode(frames, encoder_state), decode(received, decoder_state)

        return step

    def _encode(self, frames: Tensor, state: Tensor) -> Tensor:
        latent = self.model.encoder.step(frames.unsqueeze(-1), state)
        return self.model.quantizer.encode(latent, self.count)[:, 0]

    def _decode(self, received: Tensor, state: Tensor) -> Tensor:
        latent = self.model.quantizer.decode(received.long()[:, None], self.config.latent_dim)
        return self.model.decoder.step(latent, state)[..., 0]


class ModelStepper:
    """A `TorchNetwork` on B streams that never come or go: no masks, one bitrate.

    Parameters
    ----------
    network : TorchNetwork
        What to run.
    streams : int
        B.
    graph : bool
        On CUDA, captured in a CUDA graph.
    """

    def __init__(self, network: TorchNetwork, streams: int, graph: bool = False) -> None:
        self._run, device, model = network.function(), network.device, network.model
        self._states = model.encoder.init_state(streams), model.decoder.init_state(streams)
        frames = torch.float32, (streams, network.config.hop_samples)
        codes = torch.int16, (streams, network.count)
        self._inputs = Buffers({"frames": frames, "received": codes}, device)
        self._outputs = Buffers({"codes": codes, "heard": frames}, device)
        self.frames: Float32 = self._inputs.host["frames"]
        self.received: Int16 = self._inputs.host["received"]
        self.codes: Int16 = self._outputs.host["codes"]
        self.heard: Float32 = self._outputs.host["heard"]
        self._launch: Callable[[], None] = self._on_device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))
            if graph:
                self._launch = captured(self._on_device, self._stream)
                for state in self._states:
                    state.zero_()
                torch.cuda.synchronize(device)

    @torch.no_grad()
    def step(self) -> None:
        """Code one frame of every stream and wait for it."""
        with torch.cuda.stream(self._stream):
            self._inputs.to_device()
            self._launch()
            self._outputs.to_host()
        if self._stream is not None:
            self._stream.synchronize()

    @torch.no_grad()
    def _on_device(self) -> None:
        codes, heard = self._run(self._inputs.device["frames"], self._inputs.device["received"], *self._states)
        self._outputs.device["codes"].copy_(codes)
        self._outputs.device["heard"].copy_(heard)


def codebooks(config: CodecConfig) -> int:
    """Codebooks that every stream uses."""
    return max(1, round(BITRATE_SHARE * config.n_codebooks))


def our_batch(
    config: CodecConfig, arrays: Arrays, streams: int, device: torch.device, precision: str = "ieee"
) -> StreamBatch:
    """A full `StreamBatch`."""
    bitrate_bps = codebooks(config) * config.bitrate_step_bps
    batch = StreamBatch(config, arrays, streams, bitrate_bps=bitrate_bps, device=str(device), precision=precision)
    for _ in range(streams):
        batch.join()
    return batch


def check(name: str, stepper: Stepper, config: CodecConfig, arrays: Arrays) -> None:
    """Refuse what does not compute the network; it must be fresh, and is not afterwards.

    Raises
    ------
    BackendError
        Codes or audio of a stream differ from the reference.
    """
    frames, count = drawn_frames(config, CHECK_FRAMES), codebooks(config)
    expected, audio = _reference(config, arrays, frames)
    agree, error = 1.0, 0.0
    for f, frame in enumerate(frames):
        stepper.frames[:] = frame
        stepper.received[:, :count] = expected[f]
        stepper.step()
        agree -= float((stepper.codes[:, :count] != expected[f]).mean()) / CHECK_FRAMES
        error = max(error, float(np.abs(stepper.heard - audio[f]).max()))
    if agree < CODES_AGREE or not error < AUDIO_ERROR:
        raise BackendError(
            f"{name} is wrong: {agree:.1%} of the codes agree with the reference (at least {CODES_AGREE:.0%} "
            f"must), audio differs by {error:.1e} (at most {AUDIO_ERROR:.0e} may); nothing is reported"
        )


def _reference(config: CodecConfig, arrays: Arrays, frames: Float32) -> tuple[Int16, Float32]:
    """Codes and audio of the check; kept for the next contender on the same arrays."""
    if not (_known and _known[0] is arrays):
        expected = encode_clip(config, arrays, frames.reshape(-1))[: codebooks(config)].T
        _known[:] = arrays, expected, decode_clip(config, arrays, list(expected)).reshape(frames.shape)
    return _known[1], _known[2]


_known: list[Any] = []


def time_ticks(
    stepper: Stepper, config: CodecConfig, ticks: int, clock: Callable[[], float] = time.perf_counter
) -> Ticks:
    """Time steps, copies to and from the device included, in which every stream hears what it said a step ago."""
    streams, count = len(stepper.frames), codebooks(config)
    stepper.frames[:] = drawn_frames(config, streams)
    times_ms = []
    for _ in range(_WARM_UP_TICKS + ticks):
        stepper.received[:, :count] = stepper.codes[:, :count]
        begin = clock()
        stepper.step()
        times_ms.append(1e3 * (clock() - begin))
    p50, p99 = np.percentile(times_ms[_WARM_UP_TICKS:], [50, 99])
    return Ticks(streams, float(p50), float(p99))
