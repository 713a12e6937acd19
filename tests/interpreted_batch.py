"""Whole batches through the Triton kernels, on CPU tensors; run by test_triton_interpreter.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a batch needs torch")
pytest.importorskip("triton", reason="Triton kernels need triton")

from batch_streams import NARROW, check_independence, check_random_lives, drawn_codec, narrow_batch  # noqa: E402

from streamcodec.bench.gpu.kernels import cases, check  # noqa: E402
from streamcodec.bench.reference import random_weights  # noqa: E402
from streamcodec.config import CodecConfig  # noqa: E402
from streamcodec.errors import BackendError  # noqa: E402

MINUTE = replace(NARROW, name="minute", strides=(2,), dilations=(3,), n_codebooks=2)
READING = replace(MINUTE, name="reading", edge="strided", strides=(3, 2), dilations=((1,), (2,)), edge_kernel=3)
shapes = pytest.mark.parametrize("config", [MINUTE, READING], ids=lambda config: config.name)


@shapes
def test_streams_that_come_and_go_equal_streams_alone(config: CodecConfig) -> None:
    codec = drawn_codec(config)
    assert check_random_lives(narrow_batch(codec, 3, backend="triton"), codec, 8, seed=4) == 0


def test_a_stream_depends_on_no_neighbour_and_no_slot() -> None:
    frames = np.random.default_rng(0).standard_normal((2, MINUTE.hop_samples)).astype(np.float32)
    check_independence(narrow_batch(drawn_codec(MINUTE), 2, backend="triton"), frames)


def test_a_model_without_kernels_is_refused_by_layer() -> None:
    dense = drawn_codec(replace(MINUTE, depthwise=False))
    with pytest.raises(BackendError, match=r"encoder\.1, .*has no kernel; choose backend='torch'"):
        narrow_batch(dense, 2, backend="triton")


@shapes
def test_every_launch_of_the_benchmark_computes_what_torch_computes(config: CodecConfig) -> None:
    launches = list(cases(config, random_weights(config), 2, torch.device("cpu"), "ieee"))
    assert len(launches) == {"minute": 10, "reading": 12}[config.name]
    for case in launches:
        check(case)
    deaf = replace(launches[1], ours=lambda: torch.zeros_like(launches[1].torch()))
    with pytest.raises(BackendError, match=r"residual_unit of encoder\.1 is wrong: .*nothing is reported"):
        check(deaf)
