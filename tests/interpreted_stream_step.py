"""One step of every layer against its reference; run by test_triton_interpreter.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="Triton kernels take torch tensors")
pytest.importorskip("triton", reason="Triton kernels need triton")

from stream_layers import StreamLayer, Streams, conv, conv_transpose, residual, waveform  # noqa: E402

from streamcodec_kernels.ring.cuda import advance  # noqa: E402

LAYERS = {
    "residual, streams share a tile": partial(residual, 8, 16, 7, 9),
    "residual, a stream has several tiles": partial(residual, 150, 20, 7, 9),
    "residual, frames straddle tiles": partial(residual, 40, 40, 7, 3),
    "residual, one row": partial(residual, 1, 5, 3, 2),
    "residual, wider than a tile": partial(residual, 2, 270, 3, 1),
    "conv of a waveform": partial(conv, 72, 1, 16, 7, 1, False),
    "conv by two": partial(conv, 12, 16, 24, 4, 2, True),
    "conv by five, odd widths": partial(conv, 10, 5, 7, 10, 5, True),
    "conv by eight, one row out": partial(conv, 8, 16, 70, 16, 8, True),
    "conv of single rows": partial(conv, 1, 24, 10, 7, 1, True),
    "conv without a past": partial(conv, 6, 8, 8, 2, 2, False),
    "transposed by eight": partial(conv_transpose, 1, 16, 8, 16, 8, True),
    "transposed by two": partial(conv_transpose, 40, 8, 5, 4, 2, True),
    "transposed, kernel of three": partial(conv_transpose, 3, 4, 4, 3, 2, False),
    "transposed without overlap": partial(conv_transpose, 3, 4, 4, 2, 2, False),
    "conv of a waveform by five": partial(conv, 30, 1, 24, 10, 5, False),
    "transposed to a waveform": partial(conv_transpose, 12, 24, 1, 10, 5, True, with_tanh=True),
    "waveform": partial(waveform, 150, 16, 7),
    "waveform of short frames": partial(waveform, 3, 40, 7),
}
TOLERANCE = {torch.float32: 3e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
NARROW = (
    "residual, frames straddle tiles",
    "conv by two",
    "transposed by eight",
    "transposed to a waveform",
    "waveform",
)
PRODUCTS = {torch.float32: torch.float32, torch.float16: torch.float16, torch.bfloat16: torch.float32}
"""Type of the weights beside activations of a type: the interpreter multiplies bfloat16 as whole numbers."""

Make = Callable[..., StreamLayer]
layers = pytest.mark.parametrize("make", LAYERS.values(), ids=list(LAYERS))


def check(make: Make, dtype: torch.dtype, batch: int, frames: int) -> None:
    streams = Streams(make(PRODUCTS[dtype]), batch, dtype, seed=batch)
    for _ in range(frames):
        streams.check(*streams.drawn(), TOLERANCE[dtype])


@layers
def test_steps_equal_the_reference_and_idle_streams_stay_as_they_are(make: Make) -> None:
    check(make, torch.float32, batch=3, frames=4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NARROW)
def test_steps_of_narrow_numbers_equal_the_reference(name: str, dtype: torch.dtype) -> None:
    check(LAYERS[name], dtype, batch=2, frames=3)


@layers
def test_a_stream_gives_the_same_bits_alone_and_among_others(make: Make) -> None:
    layer = make(torch.float32)
    together, alone = Streams(layer, 5, torch.float32, seed=1), Streams(layer, 1, torch.float32, seed=2)
    together.frame[3:4] = alone.frame
    together.state[3:4] = alone.state
    for _ in range(2):
        x, active = together.drawn()
        active[3] = True
        x[3] = torch.randn(layer.in_shape, generator=alone.source)
        expected = alone.step(x[3:4].clone(), active[3:4].clone())
        assert torch.equal(together.step(x, active)[3:4], expected)
        assert torch.equal(together.state[3].nan_to_num(7), alone.state[0].nan_to_num(7))


def test_counters_of_active_streams_advance() -> None:
    frame = torch.tensor([0, 5, 2**31 - 1, 7], dtype=torch.int32)
    advance(frame, torch.tensor([True, True, True, False]))
    assert frame.tolist() == [1, 6, 0, 7]


def test_wrong_shapes_are_refused() -> None:
    layer = residual(8, 16, 7, 1, torch.float32)
    x, frame, active = torch.zeros(2, 8, 16), torch.zeros(2, dtype=torch.int32), torch.ones(2, dtype=torch.bool)
    state = torch.zeros(2, *layer.state_shape)
    with pytest.raises(ValueError, match="same array"):
        layer.step(x, state, frame, active, x)
    with pytest.raises(ValueError, match="state_shape"):
        layer.step(x, state[:, 1:], frame, active, torch.empty_like(x))
    layer = conv(8, 16, 16, 4, 2, True, torch.float32)
    with pytest.raises(ValueError, match="state_shape"):
        layer.step(x, state, frame, active, torch.empty(2, 4, 16))
    with pytest.raises(ValueError, match="multiple of the stride"):
        layer.step(x[:, 1:], state, frame, active, torch.empty(2, 4, 16))
    with pytest.raises(ValueError, match="out is"):
        layer.step(x, torch.zeros(2, *layer.state_shape), frame, active, x)
    layer = waveform(8, 16, 7, torch.float32)
    with pytest.raises(ValueError, match="one channel"):
        layer.step(x, torch.zeros(2, *layer.state_shape), frame, active, x)
    with pytest.raises(ValueError, match="state_shape"):
        layer.step(x, state[:, :3], frame, active, torch.empty(2, 8, 1))
