"""How many full-duplex streams keep up: every frame of every stream within one frame's time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from streamcodec.bench.search import Ticks, most_streams
from streamcodec.bench.timing import drawn_frames
from streamcodec.engine.cpu import CpuEngine

TICKS = 150
MOST_STREAMS = 4096


@dataclass(frozen=True)
class Capacity:
    """Streams that keep up, encoder and decoder each.

    Parameters
    ----------
    threads : int
        Threads of the pool.
    streams : int
        Most streams whose p99 tick ends before the next one is due.
    p50_ms, p99_ms : float
        Time of one tick, in which each stream codes and decodes a frame.
    """

    threads: int
    streams: int
    p50_ms: float
    p99_ms: float


def capacity(engine: CpuEngine, threads: int, ticks: int = TICKS) -> Capacity:
    """Search for the number of streams that `threads` threads carry, by `ticks` ticks for each number tried."""
    with ThreadPoolExecutor(threads) as pool:

        def measure(streams: int) -> Ticks:
            p50, p99 = np.percentile(_ticks_ms(engine, pool, threads, streams, ticks), [50, 99])
            return Ticks(streams, float(p50), float(p99))

        best = most_streams(measure, threads, engine.config.algorithmic_latency_ms, MOST_STREAMS)
    return Capacity(threads, best.streams, best.p50_ms, best.p99_ms)


def _ticks_ms(engine: CpuEngine, pool: ThreadPoolExecutor, threads: int, streams: int, ticks: int) -> list[float]:
    """Times of ticks; each thread has its share of the streams."""
    shares = [share for share in np.array_split(np.arange(streams), threads) if len(share)]
    frames = drawn_frames(engine.config, streams)
    work = [
        (
            np.ascontiguousarray(frames[share]),
            engine.encoder_state(len(share)),
            engine.decoder_state(len(share)),
            np.zeros((len(share), engine.config.n_codebooks), np.int16),
            np.zeros((len(share), engine.config.hop_samples), np.float32),
        )
        for share in shares
    ]

    def tick(index: int) -> None:
        spoken, encoder_state, decoder_state, codes, heard = work[index]
        engine.encode_step(spoken, encoder_state, codes)
        engine.decode_step(codes, decoder_state, heard)

    times_ms = []
    for turn in range(ticks + 3):
        begin = time.perf_counter()
        for result in [pool.submit(tick, index) for index in range(len(work))]:
            result.result()
        if turn >= 3:
            times_ms.append(1e3 * (time.perf_counter() - begin))
    return times_ms
