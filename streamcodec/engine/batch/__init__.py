"""Many streams at once on one device, as a server runs them: `StreamBatch`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import streamcodec.engine.forked  # noqa: F401
from streamcodec.bitstream import make_packet, read_packet
from streamcodec.checkpoint import Arrays
from streamcodec.config import CodecConfig
from streamcodec.engine import Float32, Int16, fade
from streamcodec.engine.alone import OneThread, alone
from streamcodec.engine.batch import checks
from streamcodec.engine.batch.buffers import Buffers
from streamcodec.engine.batch.checks import UNUSED
from streamcodec.engine.batch.graph import captured
from streamcodec.engine.batch.steps import create_steps
from streamcodec.errors import BackendError, BitstreamError, SlotError

MODES = ("duplex", "encode", "decode")


class Step(NamedTuple):
    """What one step made: views of `StreamBatch.codes` and `StreamBatch.heard`, overwritten by the next one."""

    codes: Int16
    heard: Float32


class StreamBatch(OneThread):
    """Up to B streams on one device, stepped together, each with its own state, bitrate and life.

    A step takes one frame of every stream: it encodes what is in `frames` into `codes` and decodes what is in
    `received` into `heard`.  All state stays on the device; capacity is fixed here, and joining, leaving and
    resetting allocate nothing.  What a stream gets depends on no other stream and not on its slot, bit for bit.
    On CUDA a step is two copies and one launch of a CUDA graph.  One thread at a time may use a
    batch; a second one gets a BusyError.  A batch cannot be copied or pickled.

    The four arrays lie in pinned host memory.  Write rows of the first two, call `step()`, read rows of the others:

    - `frames`, float32 [B, hop]: to encode.  Clamped to +-1; a value that is not finite is coded as 0.
    - `received`, int16 [B, K]: to decode, -1 from the last codebook that came on.  A row of -1 is a lost frame and
      is concealed.  After a step all rows are -1.
    - `codes`, int16 [B, K]: encoded, -1 from the stream's number of codebooks on.
    - `heard`, float32 [B, hop]: decoded.

    Where the mode does not encode or decode, its arrays have no columns.

    Parameters
    ----------
    config : CodecConfig
        A causal model.
    arrays : mapping of str to array
        Weights by the names of `streamcodec.architecture`.
    streams : int
        B, the capacity.
    bitrate_bps : float
        Of a stream that joins without saying.
    mode : {"duplex", "encode", "decode"}
        What a step does.
    device : {"cpu", "cuda"}
        Where it runs; also "cuda:1".
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA, plain torch on the CPU.
    precision : {"ieee", "tf32x3", "tf32"}
        How Triton multiplies matrices: in float32; on tensor cores, nearly so; or roughly, which changes codes.
    graph : bool
        Whether a step on CUDA is captured in a graph; False is for measuring what that gains.

    Raises
    ------
    BackendError
        This cannot run here.
    """

    def __init__(
        self,
        config: CodecConfig,
        arrays: Arrays,
        streams: int,
        *,
        bitrate_bps: float = 6000,
        mode: str = "duplex",
        device: str = "cuda",
        backend: str = "auto",
        precision: str = "ieee",
        graph: bool = True,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise BackendError(f"mode {mode!r} is unknown for a batch; choose one of {', '.join(MODES)}")
        if streams < 1:
            raise BackendError(f"a batch of {streams} streams; give at least 1")
        if not config.causal:
            raise BackendError(f"{config.name} looks ahead, so it cannot stream; choose a causal model")
        if device.split(":")[0] not in ("cpu", "cuda"):
            raise BackendError(f"device {device!r} is unknown; choose one of cpu, cuda")
        where = torch.device(device)
        if where.type == "cuda" and not torch.cuda.is_available():
            raise BackendError(f"device {device}: torch finds no GPU; choose device='cpu'")
        self.config = config
        self.mode = mode
        self.streams = streams
        self.device = where
        self._default_codebooks = config.codebooks_for(bitrate_bps)
        self._encodes, self._decodes = mode != "decode", mode != "encode"
        self._steps = create_steps(config, arrays, streams, where, backend, precision)
        self.backend = self._steps.name
        hop, count = config.hop_samples, config.n_codebooks
        self._inputs = Buffers(
            {
                "frames": (torch.float32, (streams, hop if self._encodes else 0)),
                "received": (torch.int16, (streams, count if self._decodes else 0)),
                "books": (torch.int32, (streams,)),
                "received_books": (torch.int32, (streams,)),
                "active": (torch.bool, (streams,)),
                "fresh": (torch.int64, (streams,)),
                "gain_before": (torch.float32, (streams,)),
                "gain_after": (torch.float32, (streams,)),
            },
            where,
        )
        self._outputs = Buffers(
            {
                "codes": (torch.int16, (streams, count if self._encodes else 0)),
                "heard": (torch.float32, (streams, hop if self._decodes else 0)),
            },
            where,
        )
        self.frames: Float32 = self._inputs.host["frames"]
        self.received: Int16 = self._inputs.host["received"]
        self.codes: Int16 = self._outputs.host["codes"]
        self.heard: Float32 = self._outputs.host["heard"]
        self._fresh: set[int] = set()
        self._joined = np.zeros(streams, np.bool_)
        self._fade_state = np.zeros((streams, fade.VALUES), np.float32)
        self._stream = torch.cuda.Stream(where) if where.type == "cuda" else None
        self._order = torch.arange(count, device=where)
        self._ramp = torch.linspace(0, 1, hop, device=where)
        self._launch = self._on_device
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(where))  # the weights
            if graph:
                self._capture(self._stream)
        self.received[:] = self.codes[:] = UNUSED

    @property
    def joined(self) -> NDArray[np.bool_]:
        """Which slots are taken, bool [B]; a copy."""
        return self._joined.copy()

    @alone
    def join(self, bitrate_bps: float | None = None) -> int:
        """Start a stream in the lowest free slot, at the batch's bitrate when None.

        Raises
        ------
        SlotError
            No slot is free.
        BitrateError
            The model does not have this bitrate.
        """
        count = self._default_codebooks if bitrate_bps is None else self.config.codebooks_for(bitrate_bps)
        slot = int(np.argmin(self._joined))
        if self._joined[slot]:
            raise SlotError(f"all {self.streams} slots are taken; leave() one, or make a batch of more streams")
        self._joined[slot] = True
        self._inputs.host["books"][slot] = count
        self.reset(slot)
        return slot

    @alone
    def leave(self, slot: int) -> None:
        """End a stream; its slot is free."""
        self._check(slot)
        self._joined[slot] = False
        self.frames[slot] = self.heard[slot] = 0
        self.received[slot] = self.codes[slot] = UNUSED

    @alone
    def reset(self, slot: int) -> None:
        """Make a stream forget everything, as if it had just joined; its bitrate stays."""
        self._check(slot)
        self._fresh.add(slot)  # zeroed at the start of the next step, with all others
        self._fade_state[slot] = 0

    @alone
    def bitrate_bps(self, slot: int) -> float:
        """Bitrate that a stream is encoded at."""
        self._check(slot)
        return int(self._inputs.host["books"][slot]) * self.config.bitrate_step_bps

    @alone
    def set_bitrate(self, slot: int, bitrate_bps: float) -> None:
        """Encode a stream at another bitrate from the next frame on."""
        self._check(slot)
        self._inputs.host["books"][slot] = self.config.codebooks_for(bitrate_bps)

    @alone
    def packet(self, slot: int) -> bytes:
        """Return what the last step encoded for a stream, as a packet."""
        self._check(slot)
        row = self.codes[slot]
        return make_packet(row[row != UNUSED], self.config.bits_per_code)

    @alone
    def receive(self, slot: int, packet: bytes | None) -> None:
        """Give the next step a packet to decode for a stream; None is a lost one.

        Raises
        ------
        BitstreamError
            Not a packet of this model.
        """
        self._check(slot)
        codes = np.empty(0, np.int16) if packet is None else read_packet(packet, self.config.bits_per_code)
        if len(codes) > self.config.n_codebooks:
            raise BitstreamError(f"a packet of {len(codes)} codes; this model makes at most {self.config.n_codebooks}")
        self.received[slot] = UNUSED
        self.received[slot, : len(codes)] = codes

    @alone
    def step(
        self,
        frames: Float32 | None = None,
        codes: Int16 | None = None,
        *,
        lost: NDArray[np.bool_] | None = None,
        advance: NDArray[np.bool_] | None = None,
    ) -> Step:
        """Code one frame of every stream that has joined.

        Parameters
        ----------
        frames, codes : array, optional
            Copied to `frames` and `received` first.
        lost : array, optional
            bool [B]: streams whose `received` frame is to be concealed.
        advance : array, optional
            bool [B]: streams that take part in this step, all when None.  The others keep their state; what they
            received is dropped.

        Raises
        ------
        AudioError
            An array has a wrong type or shape.
        CorruptStream
            A code is out of range or stands behind an unused one; no stream has advanced.
        """
        for name, given in (("frames", frames), ("received", codes)):
            if given is not None:
                checks.copy(self._inputs.host[name], given, name)
        active = self._joined if advance is None else self._joined & checks.mask(advance, self.streams)
        if lost is not None:
            self.received[checks.mask(lost, self.streams)] = UNUSED
        host = self._inputs.host
        host["active"][:] = active
        host["received_books"][:] = count = checks.received_books(self.received, active, self.config.codebook_size)
        fade_state = self._fade_state.copy()
        host["gain_before"][:], host["gain_after"][:] = fade.gains(count == 0, fade_state)
        self._fade_state[active] = fade_state[active]
        fresh = sorted(self._fresh)
        host["fresh"][: len(fresh)] = fresh
        with torch.cuda.stream(self._stream):
            self._inputs.to_device()
            if fresh:
                self._steps.reset(self._inputs.device["fresh"][: len(fresh)])
            self._launch()
            self._outputs.to_host()
        if self._stream is not None:
            self._stream.synchronize()
        self._fresh.clear()
        self.received[:] = UNUSED
        return Step(self.codes, self.heard)

    def _on_device(self) -> None:
        """Everything that a step computes; it reads and writes tensors that stay where they are."""
        given, made = self._inputs.device, self._outputs.device
        active = given["active"]
        if self._encodes:
            frames = torch.nan_to_num(given["frames"], nan=0.0, posinf=0.0, neginf=0.0).clamp_(-1, 1)
            self._steps.encode(frames, given["books"], active, made["codes"])
            used = (self._order < given["books"][:, None]) & active[:, None]
            made["codes"].masked_fill_(~used, UNUSED)
        if self._decodes:
            self._steps.decode(given["received"], given["received_books"], active, made["heard"])
            before, after = given["gain_before"][:, None], given["gain_after"][:, None]
            made["heard"].mul_(before + (after - before) * self._ramp).masked_fill_(~active[:, None], 0.0)

    def _capture(self, stream: torch.cuda.Stream) -> None:
        """Record the step; it runs with every stream active first, so that kernels are tuned on full work."""
        host = self._inputs.host
        host["active"][:] = True
        host["books"][:] = host["received_books"][:] = self.config.n_codebooks
        with torch.cuda.stream(stream):
            self._inputs.to_device()
        self._launch = captured(self._on_device, stream)
        with torch.cuda.stream(stream):
            self._steps.reset(torch.arange(self.streams, device=self.device))
        stream.synchronize()

    def __reduce__(self) -> tuple[Any, ...]:
        raise BackendError("a StreamBatch lives on its device and cannot be copied or pickled; make another there")

    def _check(self, slot: int) -> None:
        if not (0 <= slot < self.streams and self._joined[slot]):
            raise SlotError(f"no stream is in slot {slot}; join() gives a slot from 0 to {self.streams - 1}")
