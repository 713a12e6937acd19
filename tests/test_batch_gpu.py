"""Batches on a card: Triton and plain torch, as a CUDA graph and launch by launch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a batch needs torch")

from batch_streams import (  # noqa: E402
    NARROW,
    check_independence,
    check_random_lives,
    check_speech,
    drawn_codec,
    life,
    narrow_batch,
    speech,
)

from streamcodec import Codec  # noqa: E402
from streamcodec.checkpoint import load_checkpoint  # noqa: E402
from streamcodec.engine.batch import StreamBatch  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
backends = pytest.mark.parametrize("backend", ["triton", "torch"])


@backends
def test_streams_that_come_and_go_equal_streams_alone(backend: str) -> None:
    codec = drawn_codec(NARROW)
    assert (
        check_random_lives(narrow_batch(codec, 70, device="cuda", backend=backend), codec, 100, audio_error=1e-4) <= 3
    )


@backends
def test_real_speech_makes_the_codes_of_the_cpu_engine(backend: str) -> None:
    check_speech(Codec.load().batch(37, backend=backend), [1500, 6000, 9000, 750, 3000], frames=300)


@pytest.mark.parametrize("streams", [1, 5, 64, 130])
def test_a_stream_depends_on_no_neighbour_and_no_slot(streams: int) -> None:
    check_independence(Codec.load().batch(streams), speech(Codec.load(), 12, 100))


@pytest.mark.parametrize("precision", ["ieee", "tf32x3", "tf32"])
def test_a_stream_is_the_same_in_batches_of_any_capacity(precision: str) -> None:
    codec, lives = Codec.load(), []
    for streams in (1, 3, 64, 300):
        batch = codec.batch(streams, precision=precision)
        slots = [batch.join() for _ in range(streams)]
        lives.append(life(batch, slots[-1], speech(codec, 6, 100), np.random.default_rng(0)))
    for other in lives[1:]:
        for one, same in zip(lives[0], other, strict=True):
            np.testing.assert_array_equal(one, same)


@backends
def test_a_graph_computes_what_its_launches_compute(backend: str) -> None:
    checkpoint, lives = load_checkpoint(), []
    for graph in (True, False):
        batch = StreamBatch(checkpoint.config, checkpoint.arrays, 9, backend=backend, graph=graph)
        slots = [batch.join() for _ in range(9)]
        lives.append(life(batch, slots[4], speech(Codec.load(), 10, 100), np.random.default_rng(0)))
    for one, other in zip(*lives, strict=True):
        np.testing.assert_array_equal(one, other)


def test_steps_and_resets_allocate_no_device_memory() -> None:
    batch = Codec.load().batch(16)
    slots = [batch.join() for _ in range(16)]
    batch.step()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for slot in slots:
        batch.step()
        batch.reset(slot)
        batch.leave(slot)
        batch.join(750)
    assert torch.cuda.memory_allocated() == torch.cuda.max_memory_allocated() == before
