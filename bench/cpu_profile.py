"""Where a frame's time goes in the CPU engine: `python bench/cpu_profile.py [PRESET]`, the bundled weights without one.

A layer's time is that of a frame cut off behind it less that of a frame cut off before it, each the lower quartile of
many, taken in turns: layers run with the caches as they find them.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from streamcodec.bench.gemm import sgemm_rates
from streamcodec.bench.report import half_weights
from streamcodec.bench.timing import drawn_frames
from streamcodec.checkpoint import load_checkpoint
from streamcodec.config import PRESETS
from streamcodec.engine.cpu import CpuEngine
from streamcodec_kernels.program.layout import COLUMN, CONV, RESIDUAL

ROUNDS = 500
NAMES = {CONV: "convolution", RESIDUAL: "residual unit"}


def quartiles_us(calls: Sequence[Callable[[], None]]) -> list[float]:
    """Lower quartile of each call's time."""
    times = np.zeros((ROUNDS, len(calls)))
    for row in times:
        for i, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            row[i] = time.perf_counter() - begin
    return [float(one) for one in 1e6 * np.percentile(times, 25, axis=0)]


def profile(engine: CpuEngine, is_encoder: bool) -> None:
    frames = drawn_frames(engine.config, 1)
    state = engine.encoder_state() if is_encoder else engine.decoder_state()
    attribute = "_encoder" if is_encoder else "_decoder"
    whole = getattr(engine, attribute)
    fewest, most = (1 if is_encoder else 0), engine.config.n_codebooks

    def cut(operations: int, codebooks: int) -> Callable[[], None]:
        program = dataclasses.replace(whole, table=whole.table[:operations])
        codes = np.zeros((1, codebooks), np.int16)

        def call() -> None:
            setattr(engine, attribute, program)
            if is_encoder:
                engine.encode_step(frames, state, codes)
            else:
                engine.decode_step(codes, state, frames)

        return call

    count = len(whole.table)
    *prefixes, total = quartiles_us([cut(i, fewest) for i in range(count + 1)] + [cut(count, most)])
    setattr(engine, attribute, whole)
    parts = [("call, first codebook" if is_encoder else "call", prefixes[0], 0)]
    for row, before, after in zip(whole.table, prefixes, prefixes[1:], strict=False):
        one = {name: int(row[column]) for name, column in COLUMN.items()}
        rows, inputs = one["ROWS_IN"], one["CHANNELS_IN"]
        out = (one["ROWS_OUT"], one["COLUMNS_OUT"]) if one["OP"] == CONV else (rows, inputs)
        depth = one["DEPTH"] * one["TAPS"] if one["OP"] == CONV else inputs
        name = f"{NAMES.get(one['OP'], 'tanh')}, {rows} x {inputs} to {out[0]} x {out[1]}"
        parts.append((name, after - before, out[0] * out[1] * depth if one["OP"] in NAMES else 0))
    parts.append((f"codebooks {fewest + 1} to {most}", total - prefixes[-1], 0))
    print(f"\n{attribute[1:]}: {total:.0f} us a frame")
    for name, took_us, macs in parts:
        rate = f"{2e-3 * macs / took_us:6.0f} GFLOP/s in products" if macs and took_us > 0.5 else ""
        print(f"{took_us:7.1f} us {took_us / total:6.1%}  {name:44s}{rate}")


def main(preset: str | None) -> None:
    checkpoint = load_checkpoint() if preset is None else None
    config = checkpoint.config if checkpoint else PRESETS[str(preset)]
    engine = CpuEngine(config, checkpoint.arrays if checkpoint else half_weights(config))
    print(f"{config.name}, code dimension {config.code_dim}; sgemm ceiling {max(sgemm_rates().values()):.0f} GFLOP/s")
    for is_encoder in (True, False):
        profile(engine, is_encoder)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
