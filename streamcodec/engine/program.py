"""Compiles layer records and weights to the tables that the CPU kernels run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamcodec.architecture import Conv, ConvTranspose, Layer, Residual, Snake, Tanh, decoder_layers, encoder_layers
from streamcodec.config import CodecConfig
from streamcodec.errors import BackendError
from streamcodec_kernels._simd import round_up
from streamcodec_kernels.code_lookup._numba import pack_lookup
from streamcodec_kernels.conv._numba import pack_conv
from streamcodec_kernels.conv_transpose._numba import as_conv
from streamcodec_kernels.matmul._numba import pack, pack_bias
from streamcodec_kernels.nearest_code._numba import pack_book
from streamcodec_kernels.program.layout import COLUMN, CONV, RESIDUAL, TANH
from streamcodec_kernels.residual_unit._numba import block_rows
from streamcodec_kernels.snake._numba import snake_constants

Float32 = NDArray[np.float32]
Weights = Mapping[str, Float32]

_ALIGNMENT = 16


@dataclass(frozen=True)
class Program:
    """One direction of a network, ready to run.

    Parameters
    ----------
    table : array of int64, [operations, columns]
        What to run: `streamcodec_kernels.program.layout`.
    weights : array of float32
        Everything that the table points to, packed.
    books_at : int
        Where the codebooks begin in `weights`.
    query_at : int
        Scratch for a codebook's query.
    state_values, scratch_values : int
        Lengths of a stream's state and of the scratch vector.
    """

    table: NDArray[np.int64]
    weights: Float32
    books_at: int
    query_at: int
    state_values: int
    scratch_values: int


def compile_encoder(config: CodecConfig, weights: Weights) -> Program:
    """Waveform to codes."""
    builder = _Builder(weights)
    builder.add_layers("encoder", encoder_layers(config), config.hop_samples, 1)
    names = ("in_weight", "in_bias", "codebook", "out_weight", "out_bias")
    books = [pack_book(*(weights[f"quantizer.{k}.{n}"] for n in names)) for k in range(config.n_codebooks)]
    return builder.finish(books)


def compile_decoder(config: CodecConfig, weights: Weights) -> Program:
    """Codes to waveform."""
    builder = _Builder(weights)
    builder.add_layers("decoder", decoder_layers(config), 1, config.latent_dim)
    names = ("codebook", "out_weight", "out_bias")
    books = [pack_lookup(*(weights[f"quantizer.{k}.{n}"] for n in names)) for k in range(config.n_codebooks)]
    return builder.finish(books)


class _Builder:
    """Collects operations; scratch areas are numbered until their sizes are known."""

    def __init__(self, weights: Weights) -> None:
        self.given = weights
        self.rows: list[dict[str, int | str]] = []
        self.packed: list[Float32] = []
        self.packed_values = 0
        self.state_values = 0
        self.areas = {"activation": 0, "seen": 0, "block": 0}
        self.time = self.channels = 0

    def add_layers(self, prefix: str, layers: tuple[Layer, ...], time: int, channels: int) -> None:
        """Compile a chain of layers for `time` rows of `channels`."""
        self.time, self.channels = time, channels
        self._reserve("activation", time * channels)
        snake: str | None = None
        for i, layer in enumerate(layers):
            name = f"{prefix}.{i}"
            match layer:
                case Snake():
                    snake = name
                case Conv(depthwise=False):
                    self._conv(*self._arrays(name), layer, snake)
                    snake = None
                case ConvTranspose():
                    self._conv_transpose(name, layer, snake)
                    snake = None
                case Residual(body=(_, Conv(depthwise=True), _, _)):
                    self._residual(name, layer)
                case Residual(body=(_, dilated, _, mix)):
                    self._conv(*self._arrays(f"{name}.1"), dilated, f"{name}.0", target="block")
                    self._conv(*self._arrays(f"{name}.3"), mix, f"{name}.2", source="block", accumulate=True)
                case Tanh():
                    self._add(OP=TANH, SOURCE="activation", ROWS_IN=self.time, CHANNELS_IN=self.channels)
                case _:
                    raise BackendError(f"the cpu engine cannot run {layer} ({name})")

    def finish(self, books: list[Float32]) -> Program:
        """Place the scratch areas and join all weights."""
        starts, at = {}, 0
        for area, values in self.areas.items():
            starts[area] = at
            at += round_up(values, _ALIGNMENT)
        table = np.zeros((len(self.rows), len(COLUMN)), np.int64)
        for row, op in zip(table, self.rows, strict=True):
            for name, value in op.items():
                row[COLUMN[name]] = starts[value] if isinstance(value, str) else value
        books_at = self.packed_values
        packed = np.concatenate([*self.packed, *books])
        weights = aligned_zeros(packed.size)
        weights[:] = packed
        return Program(table, weights, books_at, starts["seen"], self.state_values, at)

    def _arrays(self, name: str) -> tuple[Float32, Float32]:
        return self.given[f"{name}.weight"], self.given[f"{name}.bias"]

    def _reserve(self, area: str, values: int) -> None:
        self.areas[area] = max(self.areas[area], values)

    def _add(self, **columns: int | str) -> None:
        self.rows.append(columns)

    def _pack(self, values: Float32) -> int:
        """Append to the packed weights, aligned to a vector; returns the offset."""
        at = self.packed_values
        self.packed.append(np.pad(values, (0, -len(values) % _ALIGNMENT)))
        self.packed_values += len(self.packed[-1])
        return at

    def _keep(self, values: int) -> int:
        """Make room in the state; returns the offset."""
        at = self.state_values
        self.state_values += values
        return at

    def _snake(self, name: str | None) -> int:
        return -1 if name is None else self._pack(snake_constants(self.given[f"{name}.alpha"]))

    def _conv(
        self,
        weight: Float32,
        bias: Float32,
        conv: Conv,
        snake: str | None,
        source: str = "activation",
        target: str = "activation",
        accumulate: bool = False,
    ) -> None:
        rows = self.time // conv.stride
        history = conv.history_rows * conv.in_channels
        taps = conv.kernel if conv.dilation > 1 else 1
        packed, biases = pack_conv(weight, conv.dilation), pack_bias(bias)
        self._reserve("seen", history + self.time * conv.in_channels)
        self._reserve(target, rows * conv.out_channels)
        self._add(
            OP=CONV,
            SOURCE=source,
            TARGET=target,
            SEEN="seen",
            ROWS_IN=self.time,
            CHANNELS_IN=conv.in_channels,
            ROWS_OUT=rows,
            COLUMNS_OUT=conv.out_channels,
            HISTORY=history,
            STATE=self._keep(history),
            SNAKE=self._snake(snake),
            WEIGHT=self._pack(packed),
            BIAS=self._pack(biases),
            ZEROS=self._pack(np.zeros_like(biases)),
            FIRST=max(0, conv.stride - conv.span) * conv.in_channels,
            STEP=conv.stride * conv.in_channels,
            DEPTH=conv.kernel * conv.in_channels // taps,
            TAPS=taps,
            TAP_STEP=conv.dilation * conv.in_channels,
            TAP_WEIGHTS=packed.size // taps,
            ACCUMULATE=int(accumulate),
        )
        self.time, self.channels = rows, conv.out_channels

    def _conv_transpose(self, name: str, layer: ConvTranspose, snake: str | None) -> None:
        weight, bias = as_conv(*self._arrays(name), layer.stride)
        taps, inputs, outputs = weight.shape
        self._conv(weight, bias, Conv(inputs, outputs, taps), snake)
        self.time, self.channels = self.time * layer.stride, layer.out_channels

    def _residual(self, name: str, unit: Residual) -> None:
        dilated = unit.body[1]
        channels = dilated.in_channels
        history = dilated.history_rows * channels
        rows = min(block_rows(channels), self.time)
        self._reserve("seen", history + self.time * channels)
        self._reserve("block", rows * channels)
        depthwise, depthwise_bias = self._arrays(f"{name}.1")
        mix, mix_bias = self._arrays(f"{name}.3")
        self._add(
            OP=RESIDUAL,
            SOURCE="activation",
            SEEN="seen",
            BLOCK="block",
            ROWS_IN=self.time,
            CHANNELS_IN=channels,
            KERNEL=dilated.kernel,
            DILATION=dilated.dilation,
            BLOCK_ROWS=rows,
            HISTORY=history,
            STATE=self._keep(history),
            SNAKE=self._snake(f"{name}.0"),
            DEPTHWISE=self._pack(depthwise.reshape(-1)),
            DEPTHWISE_BIAS=self._pack(depthwise_bias),
            SNAKE2=self._snake(f"{name}.2"),
            WEIGHT=self._pack(pack(mix.reshape(channels, channels))),
            BIAS=self._pack(pack_bias(mix_bias)),
        )


def aligned_zeros(values: int) -> Float32:
    """Zeros that begin at a cache line."""
    raw = np.zeros(values + _ALIGNMENT, np.float32)
    start = (-raw.ctypes.data // raw.itemsize) % _ALIGNMENT
    return raw[start : start + values]
