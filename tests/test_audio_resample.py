"""Streaming resampling: exact length, no shift in time, the same samples for any chunking."""

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcodec.audio.resample import StreamingResampler, resampled_length
from streamcodec.bitstream import ScxHeader
from streamcodec.errors import AudioError

PAIRS = [(rate, 24_000) for rate in (8000, 16_000, 22_050, 44_100, 48_000)]
PAIRS += [(b, a) for a, b in PAIRS]


def run(resampler, sound, sizes):
    parts, start = [], 0
    for size in sizes:
        parts.append(resampler.process(sound[start : start + size]))
        start += size
    parts += [resampler.process(sound[start:]), resampler.finish()]
    return np.concatenate(parts)


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from([*PAIRS, (24_000, 24_000)]),
    st.integers(0, 3000),
    st.lists(st.integers(0, 700), max_size=12),
    st.integers(1, 2),
)
def test_stream_equals_one_shot_for_any_chunking(pair, n_samples, sizes, channels):
    sound = np.random.default_rng(n_samples).standard_normal((n_samples, channels)).astype(np.float32)
    resampler = StreamingResampler(*pair, channels)
    out = run(resampler, sound, sizes)
    assert out.shape == (int(n_samples * pair[1] / pair[0] + 0.5), channels)
    assert out.dtype == np.float32
    assert resampler.pending_samples == 0
    if n_samples:
        whole = soxr.resample(sound, *pair).reshape(-1, channels)
        assert abs(len(whole) - len(out)) <= 1  # soxr may round a half down
        np.testing.assert_allclose(out[: len(whole)], whole[: len(out)], atol=2e-6)
    resampler.reset()
    np.testing.assert_array_equal(run(resampler, sound, [320] * 3), out)


@pytest.mark.parametrize("pair", PAIRS)
def test_resampling_shifts_nothing_in_time(pair):
    in_hz, out_hz = pair
    seconds, tone_hz = 1, 1000
    sound = np.sin(2 * np.pi * tone_hz * np.arange(seconds * in_hz) / in_hz).astype(np.float32)[:, None]
    out = run(StreamingResampler(in_hz, out_hz, 1), sound, [in_hz // 75] * 40)[:, 0]
    assert len(out) == seconds * out_hz
    middle = slice(out_hz // 4, 3 * out_hz // 4)
    phase = 2 * np.pi * tone_hz * np.arange(len(out)) / out_hz
    turn = np.angle(np.sum(out[middle] * np.exp(-1j * phase[middle])) * 1j)
    assert abs(turn / (2 * np.pi * tone_hz) * out_hz) < 1e-3
    assert np.max(np.abs(out - np.sin(phase))[middle]) < 1e-4


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 44_100, 48_000])
def test_there_and_back_gives_the_sound_at_its_length(rate_hz):
    t = np.arange(rate_hz // 2 + 1) / rate_hz
    sound = (np.sin(2 * np.pi * 300 * t) * np.hanning(len(t))).astype(np.float32)[:, None]
    there = run(StreamingResampler(rate_hz, 24_000, 1), sound, [100])
    back = StreamingResampler(24_000, rate_hz, 1)
    out = np.concatenate([back.process(there), back.finish(len(sound))])
    assert len(out) == len(sound)
    np.testing.assert_allclose(out, sound, atol=1e-3)


def test_equal_rates_pass_the_samples_on_at_once():
    resampler = StreamingResampler(24_000, 24_000, 2)
    sound = np.random.default_rng(0).standard_normal((10, 2)).astype(np.float32)
    out = resampler.process(sound)
    np.testing.assert_array_equal(out, sound)
    assert not np.shares_memory(out, sound)
    assert resampler.finish(12).tolist() == [[0, 0], [0, 0]]


def test_asking_for_more_at_the_end_continues_with_silence():
    resampler = StreamingResampler(48_000, 24_000, 1)
    start = resampler.process(np.ones((4800, 1), np.float32))
    end = resampler.finish(30_000)
    assert len(start) + len(end) == resampler.n_out_samples == 30_000
    assert np.max(np.abs(end[-20_000:])) < 1e-6


def test_misuse_is_refused_in_words():
    resampler = StreamingResampler(48_000, 24_000, 2)
    for bad in (np.zeros((5, 1), np.float32), np.zeros(5, np.float32), np.zeros((5, 2))):
        with pytest.raises(AudioError, match=r"takes float32 \[T, 2\]"):
            resampler.process(bad)
    resampler.process(np.zeros((48_000, 2), np.float32))
    with pytest.raises(AudioError, match="already came out"):
        resampler.finish(10)
    resampler.finish()
    with pytest.raises(AudioError, match="finished"):
        resampler.process(np.zeros((5, 2), np.float32))
    with pytest.raises(AudioError, match="finished"):
        resampler.finish()
    with pytest.raises(AudioError, match="0 Hz"):
        StreamingResampler(0, 24_000, 1)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 2**40), st.sampled_from([8000, 22_050, 44_100, 48_000, 384_000]))
def test_file_container_and_resampler_agree_on_the_length(n_samples, rate_hz):
    header = ScxHeader(bytes(8), rate_hz, 24_000, 1, channels=1, n_codebooks=1, bits_per_code=10)
    assert header.frames_for(n_samples) == resampled_length(n_samples, rate_hz, 24_000)
