"""Compiles layer records and weights to the tables that the CPU kernels run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streamcodec.architecture import Conv, ConvTranspose, Layer, Residual, Snake, Tanh, decoder_layers, encoder_layers
from streamcodec.config import CodecConfig
from streamcodec.errors import BackendError
from streamcodec_kernels._simd import HALF_FLOATS, round_up
from streamcodec_kernels.beam_search import MAX_BEAM
from streamcodec_kernels.beam_search._numba import pack_guide, scratch_values
from streamcodec_kernels.code_lookup._numba import pack_lookup
from streamcodec_kernels.conv._numba import pack_conv
from streamcodec_kernels.conv_transpose._numba import as_conv
from streamcodec_kernels.matmul._numba import pack, pack_bias
from streamcodec_kernels.matmul._tile import PANEL
from streamcodec_kernels.nearest_code._numba import pack_book
from streamcodec_kernels.program.layout import COLUMN, CONV, RESIDUAL, SETTINGS, TANH
from streamcodec_kernels.residual_unit._numba import block_rows
from streamcodec_kernels.snake._numba import snake_constants

Float32 = NDArray[np.float32]
Weights = Mapping[str, Float32]

_Number = TypeVar("_Number", bound=np.generic)

_ALIGNMENT = 16
"""float32 in a cache line."""

HALF_FROM_VALUES, HALF_TO_ROWS = 100_000, 8
"""A matrix of so many values may be kept as float16 where a frame is so few rows: there, reading it is the cost."""


@dataclass(frozen=True)
class Program:
    """One direction of a network, ready to run.

    Parameters
    ----------
    table : array of int64, [operations, columns]
        What to run: `streamcodec_kernels.program.layout`.
    layout : mapping of str to int
        Where the rest is: settings of `streamcodec_kernels.program.layout`, but for addresses.
    weights : array of float32
        Everything that the table points to, packed.
    half_weights : array of uint16
        Bits of the matrices that are kept as float16.
    state_values : int
        Length of a stream's state.
    shared_scratch_values, stream_scratch_values : int
        Length of the scratch vector: a part for all streams together and a part for each.

    Attributes
    ----------
    settings : array of int64
        `layout`, and the addresses of the arrays: `streamcodec_kernels.program.layout`.
    settings_address : int
        Where `settings` lies.
    """

    table: NDArray[np.int64]
    layout: Mapping[str, int]
    weights: Float32
    half_weights: NDArray[np.uint16]
    state_values: int
    shared_scratch_values: int
    stream_scratch_values: int

    settings: NDArray[np.int64] = field(init=False)
    settings_address: int = field(init=False)

    def __post_init__(self) -> None:
        """Tell the compiled code where this program's arrays lie; here, not at the first call: threads share it."""
        numbers = {
            **self.layout,
            "OPERATIONS": len(self.table),
            "TABLE_ADDRESS": self.table.ctypes.data,
            "WEIGHTS_ADDRESS": self.weights.ctypes.data,
            "WEIGHTS_VALUES": self.weights.size,
            "HALF_WEIGHTS_ADDRESS": self.half_weights.ctypes.data,
            "HALF_WEIGHTS_VALUES": self.half_weights.size,
        }
        settings = np.array([numbers[name] for name in SETTINGS], np.int64)
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "settings_address", int(settings.ctypes.data))


def compile_encoder(config: CodecConfig, weights: Weights, half: bool = False) -> Program:
    """Waveform to codes; `half` rounds large matrices to float16, else only those that lose nothing are kept so."""
    builder = _Builder(weights, half)
    builder.add_layers("encoder", encoder_layers(config), config.hop_samples, 1)
    names = ("in_weight", "in_bias", "codebook", "out_weight", "out_bias")
    arrays = [[weights[f"quantizer.{k}.{name}"] for name in names] for k in range(config.n_codebooks)]
    return builder.finish(config, [pack_book(*book) for book in arrays], [pack_guide(*book[2:]) for book in arrays])


def compile_decoder(config: CodecConfig, weights: Weights, half: bool = False) -> Program:
    """Codes to waveform; `half` as for the encoder."""
    builder = _Builder(weights, half)
    builder.add_layers("decoder", decoder_layers(config), 1, config.latent_dim)
    names = ("codebook", "out_weight", "out_bias")
    books = [pack_lookup(*(weights[f"quantizer.{k}.{n}"] for n in names)) for k in range(config.n_codebooks)]
    return builder.finish(config, books, [])


class _Builder:
    """Collects operations; scratch areas go by name until their sizes are known."""

    def __init__(self, weights: Weights, half: bool) -> None:
        self.given = weights
        self.half = half
        self.rows: list[dict[str, int | str]] = []
        self.packed: list[Float32] = []
        self.packed_values = 0
        self.half_packed: list[NDArray[np.uint16]] = []
        self.half_values = 0
        self.state_values = 0
        self.areas = {"block": 0, "beam": 0, "activation": 0, "inner": 0, "query": 0, "seen": 0}
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
                    self._conv(*self._arrays(f"{name}.1"), dilated, f"{name}.0", target="inner")
                    self._conv(*self._arrays(f"{name}.3"), mix, f"{name}.2", source="inner", accumulate=True)
                case Tanh():
                    self._add(OP=TANH, SOURCE="activation", ROWS_IN=self.time, CHANNELS_IN=self.channels)
                case _:
                    raise BackendError(f"the cpu engine cannot run {layer} ({name})")

    def finish(self, config: CodecConfig, books: list[Float32], guides: list[Float32]) -> Program:
        """Place the scratch areas and join all weights; guides: what a beam search needs, of each codebook."""
        self._reserve("activation", config.latent_dim)
        self._reserve("query", config.code_dim)
        if guides:
            self._reserve("beam", scratch_values(config.latent_dim, config.code_dim, len(guides), MAX_BEAM))
        starts, at = {}, 0
        for area, values in self.areas.items():
            starts[area] = at
            at += round_up(values, _ALIGNMENT)
        shared = starts["activation"]
        stream = (at - shared) | _ALIGNMENT  # an odd number of cache lines: streams do not evict each other
        table = np.zeros((len(self.rows), len(COLUMN)), np.int64)
        for row, op in zip(table, self.rows, strict=True):
            for name, value in op.items():
                row[COLUMN[name]] = starts[value] if isinstance(value, str) else value
        layout = {
            "STREAM": stream,
            "ACTIVATION": starts["activation"],
            "QUERY": starts["query"],
            "BEAM": starts["beam"],
            "LATENT": config.latent_dim,
            "CODES": config.codebook_size,
            "DIMENSION": config.code_dim,
            "BOOKS": self.packed_values,
            "GUIDES": self.packed_values + sum(book.size for book in books),
        }
        return Program(
            table,
            layout,
            aligned(np.concatenate([*self.packed, *books, *guides])),
            aligned(np.concatenate([np.zeros(0, np.uint16), *self.half_packed])),
            self.state_values,
            shared,
            stream,
        )

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

    def _pack_matrix(self, values: Float32) -> tuple[bool, int]:
        """Append a packed matrix, as float16 where that is meant or loses nothing; returns whether, and the offset."""
        if HALF_FLOATS and len(values) >= HALF_FROM_VALUES:
            halves = values.astype(np.float16)
            if self.half or np.array_equal(halves.astype(np.float32), values):
                at = self.half_values
                self.half_packed.append(np.pad(halves.view(np.uint16), (0, -len(halves) % (2 * _ALIGNMENT))))
                self.half_values += len(self.half_packed[-1])
                return True, at
        return False, self._pack(values)

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
        may_be_half = rows <= HALF_TO_ROWS and conv.out_channels % PANEL == 0
        half, matrix_at = self._pack_matrix(packed) if may_be_half else (False, self._pack(packed))
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
            HALF=int(half),
            WEIGHT=matrix_at,
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


def aligned(values: NDArray[_Number]) -> NDArray[_Number]:
    """A copy that begins at a cache line."""
    line = _ALIGNMENT * 4 // values.itemsize
    raw = np.zeros(values.size + line, values.dtype)
    start = (-raw.ctypes.data // raw.itemsize) % line
    raw[start : start + values.size] = values
    return raw[start : start + values.size]
