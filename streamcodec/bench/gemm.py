"""How near the matrix products of the CPU engine come to what the core can do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from streamcodec.bench.reference import Weights
from streamcodec.config import CodecConfig
from streamcodec.engine.cpu import CpuEngine
from streamcodec.engine.program import Program
from streamcodec_kernels.matmul._numba import matmul_packed, pack
from streamcodec_kernels.program.layout import COLUMN, CONV, RESIDUAL, TANH

_CEILING_SIZE = 512


@dataclass(frozen=True)
class ProductRate:
    """Matrix products of one direction.

    Parameters
    ----------
    time_ms : float
        Of all matrix products of a frame, history and input copied side by side included.
    gflop_per_s : float
        Their rate.
    """

    time_ms: float
    gflop_per_s: float


def sgemm_rates(repeats: int = 100) -> dict[str, float]:
    """Best rates, GFLOP/s, of a float32 product of two square matrices that fit the caches, on one thread.

    By who computes it: numpy, named after its library and the processor that its kernels are meant for, and ours.
    A library that does not know the processor, or is told of another, is far below what the core can do.
    """
    a = np.random.default_rng(0).standard_normal((_CEILING_SIZE, _CEILING_SIZE)).astype(np.float32)
    out = np.empty_like(a)
    values, packed, bias, results = a.reshape(-1), pack(a), np.zeros(_CEILING_SIZE, np.float32), out.reshape(-1)
    n = _CEILING_SIZE
    calls: dict[str, Callable[[], object]] = {
        _numpy_kernel(threadpool_info()): lambda: np.matmul(a, a, out=out),
        "streamcodec": lambda: matmul_packed(values, n, n, packed, n, n, bias, results, False, 1, n * n),
    }
    with threadpool_limits(1):
        return {name: 2 * n**3 / _best_s(call, repeats) / 1e9 for name, call in calls.items()}


def _numpy_kernel(pools: Sequence[Mapping[str, Any]]) -> str:
    """Library that numpy multiplies with, its version and kernels, from what threadpoolctl says of the process."""
    libraries = [pool for pool in pools if pool["user_api"] == "blas"]
    own = [pool for pool in libraries if "numpy" in str(pool["filepath"])]  # others bring libraries of their own
    found = (own or libraries or [{}])[0]
    parts = (found.get(key) for key in ("internal_api", "version", "architecture"))
    return " ".join(["numpy", *(str(part) for part in parts if part)])


def product_rates(config: CodecConfig, weights: Weights, repeats: int = 200) -> tuple[ProductRate, ProductRate]:
    """Rates of encoder and decoder: best of `repeats` frames that compute the matrix products and nothing else."""
    engine = CpuEngine(config, weights)
    frames, codes = np.zeros((1, config.hop_samples), np.float32), np.zeros((1, 1), np.int16)
    encoder_state, decoder_state = engine.encoder_state(), engine.decoder_state()
    calls: tuple[Callable[[], None], Callable[[], None]] = (
        lambda: engine.encode_step(frames, encoder_state, codes),
        lambda: engine.decode_step(codes, decoder_state, frames),
    )
    rates = []
    for name, call in zip(("_encoder", "_decoder"), calls, strict=True):
        program: Program = getattr(engine, name)
        setattr(engine, name, dataclasses.replace(program, table=program.table[:0]))
        empty = _best_s(call, repeats)
        setattr(engine, name, _products_only(program))
        seconds = _best_s(call, repeats) - empty
        rates.append(ProductRate(1e3 * seconds, 2 * _macs(program) / seconds / 1e9))
    return rates[0], rates[1]


def _best_s(call: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begin)
    return best


def _products_only(program: Program) -> Program:
    """The program without Snakes and depthwise convolutions: of a residual unit its 1x1 convolution is left."""
    table = program.table[program.table[:, COLUMN["OP"]] != TANH].copy()
    for row in table:
        row[COLUMN["SNAKE"]] = -1
        if row[COLUMN["OP"]] == RESIDUAL:
            channels = row[COLUMN["CHANNELS_IN"]]
            for name, value in {
                "OP": CONV,
                "TARGET": row[COLUMN["SOURCE"]],
                "ROWS_OUT": row[COLUMN["ROWS_IN"]],
                "COLUMNS_OUT": channels,
                "HISTORY": 0,
                "STEP": channels,
                "DEPTH": channels,
                "TAPS": 1,
                "ACCUMULATE": 1,
            }.items():
                row[COLUMN[name]] = value
    return dataclasses.replace(program, table=table)


def _macs(program: Program) -> int:
    """Multiply-accumulates of a frame's matrix products."""
    total = 0
    for row in _products_only(program).table:
        total += int(row[[COLUMN[name] for name in ("ROWS_OUT", "COLUMNS_OUT", "DEPTH", "TAPS")]].prod())
    return total
