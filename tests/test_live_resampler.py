"""The short resampler: what it lets through, what it keeps out, and where each sample is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcodec.errors import AudioError
from streamcodec.live.resampler import ShortResampler
from streamcodec_kernels.fractional_resample import reference, sinc_table
from streamcodec_kernels.fractional_resample._numba import resample


def converted(resampler, samples, block):
    """All output, and the place in the input that it is said to stand for."""
    out, places = [], []
    for start in range(0, len(samples), block):
        first = resampler.input_position
        part = resampler.process(samples[start : start + block]).copy()
        places.append(first + resampler.step * np.arange(len(part)))
        out.append(part)
    return np.concatenate(out), np.concatenate(places)


@pytest.mark.parametrize(
    ("in_hz", "out_hz", "speed", "tone_hz"),
    [
        (24_000, 24_000, 1.004, 9500),
        (48_000, 24_000, 1, 9000),
        (24_000, 48_000, 0.997, 3000),
        (44_100, 24_000, 1, 8000),
    ],
)
def test_a_tone_comes_out_where_it_was(in_hz, out_hz, speed, tone_hz):
    resampler = ShortResampler(in_hz, out_hz, 441)
    resampler.speed = speed
    tone = np.sin(2 * np.pi * tone_hz / in_hz * np.arange(in_hz // 2)).astype(np.float32)
    out, places = converted(resampler, tone, 441)
    error = out - np.sin(2 * np.pi * tone_hz / in_hz * places)
    assert 10 * np.log10((error[200:] ** 2).mean() / 0.5) < -70
    assert len(out) == pytest.approx(len(tone) * out_hz / in_hz / speed, abs=40)


def test_what_the_lower_rate_cannot_hold_is_kept_out():
    resampler = ShortResampler(48_000, 24_000, 480)
    tone = np.sin(2 * np.pi * 14_500 / 48_000 * np.arange(24_000)).astype(np.float32)
    out, _ = converted(resampler, tone, 480)
    assert 10 * np.log10((out[200:] ** 2).mean() / 0.5) < -70


def test_delay_is_less_than_a_millisecond_and_an_impulse_is_in_time():
    resampler = ShortResampler(24_000, 24_000, 100)
    impulse = np.zeros(100, np.float32)
    impulse[40] = 1
    out = resampler.process(impulse)
    assert resampler.delay_ms < 1
    assert len(out) == 100 - resampler.delay_samples
    assert out.argmax() == 40


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 99),
    step=st.floats(0.2, 3.0),
    blocks=st.lists(st.integers(0, 70), min_size=1, max_size=8),
    half_taps=st.integers(1, 20),
)
def test_kernel_equals_its_reference_and_leaves_the_same_state(seed, step, blocks, half_taps):
    random = np.random.default_rng(seed)
    table = sinc_table(half_taps, 0.9)
    states = [(np.zeros(200, np.float32), np.array([0.0, half_taps - 1.0])) for _ in range(2)]
    for block in blocks:
        samples = random.standard_normal(block).astype(np.float32)
        results = []
        for function, (buffer, cursor) in zip((resample, reference.resample), states, strict=True):
            out = np.full(1000, np.nan, np.float32)
            count = function(samples, buffer, cursor, step, table, out)
            results.append(out[:count])
        np.testing.assert_allclose(*results, atol=2e-5)
        np.testing.assert_array_equal(states[0][1], states[1][1])
        held = int(states[0][1][1])
        np.testing.assert_array_equal(states[0][0][:held], states[1][0][:held])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(1, 200), min_size=1, max_size=12))
def test_any_chunking_gives_the_same_samples(seed, cuts):
    samples = np.random.default_rng(seed).standard_normal(sum(cuts)).astype(np.float32)
    whole = ShortResampler(24_000, 44_100, 2400).process(samples).copy()
    chunked = ShortResampler(24_000, 44_100, 200)
    parts = [chunked.process(part).copy() for part in np.split(samples, np.cumsum(cuts)[:-1])]
    joined = np.concatenate(parts)
    assert abs(len(joined) - len(whole)) <= 1  # the place of the last one is reckoned in floating point
    count = min(len(joined), len(whole))
    np.testing.assert_allclose(joined[:count], whole[:count], atol=1e-3)


def test_blocks_that_are_too_long_and_speeds_out_of_range_are_refused():
    resampler = ShortResampler(24_000, 24_000, 320)
    with pytest.raises(AudioError, match="T up to 320"):
        resampler.process(np.zeros(321, np.float32))
    with pytest.raises(AudioError, match=r"within 0\.005 of 1"):
        resampler.speed = 1.006
    with pytest.raises(AudioError, match="1 or more"):
        ShortResampler(0, 24_000, 320)
