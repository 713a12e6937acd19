"""Conditioning and measuring of one file."""

import numpy as np
import pytest
import soundfile
from corpus_audio import narrow, noise, save, voice

from streamcodec.errors import AudioError
from streamcodec.training.corpus.decode import decode
from streamcodec.training.corpus.measure import clipped_share, effective_bandwidth_hz
from streamcodec.training.corpus.prepare import LEVEL_DBFS, PEAK, RATE_HZ, DropItem, prepare


def stereo(wave):
    return np.stack([wave, wave], axis=1)


def test_bandwidth_of_16_khz_sound_in_a_44_khz_file_is_found_out():
    wave = voice(0)
    assert effective_bandwidth_hz(wave, 44_100) > 20_000
    assert 7000 <= effective_bandwidth_hz(narrow(wave), 44_100) <= 8500


@pytest.mark.parametrize("top_hz", [3000, 6000, 11_000])
def test_bandwidth_is_that_of_the_highest_tone(top_hz):
    t = np.arange(44_100) / 44_100
    wave = (np.sin(2 * np.pi * 440 * t) + 0.05 * np.sin(2 * np.pi * top_hz * t)).astype(np.float32)
    assert top_hz <= effective_bandwidth_hz(wave, 44_100) <= top_hz + 750


def test_bandwidth_of_silence_and_of_a_few_samples_is_defined():
    assert effective_bandwidth_hz(np.zeros(10, np.float32), 24_000) == 0.0
    assert effective_bandwidth_hz(np.ones(3, np.float32), 24_000) > 0


def test_clipping_counts_runs_not_single_peaks():
    wave = np.zeros((1000, 2), np.float32)
    wave[10::100, 0] = 1.0
    assert clipped_share(wave) == 0
    wave[500:520, 1] = -1.0
    assert clipped_share(wave) == pytest.approx(0.02)


def test_clipped_sound_is_dropped():
    loud = np.clip(4 * voice(1), -1, 1)
    with pytest.raises(DropItem, match="clipped"):
        prepare(loud[:, None], 44_100, "speech")


@pytest.mark.parametrize("wave", [np.zeros(44_100), 1e-5 * noise(0)])
def test_silence_is_dropped(wave):
    with pytest.raises(DropItem, match="silent"):
        prepare(wave.astype(np.float32)[:, None], 44_100, "environment")


@pytest.mark.parametrize("samples", [1, 100, 4000])
def test_short_sound_is_dropped(samples):
    with pytest.raises(DropItem, match="short"):
        prepare(voice(2)[:samples, None], 44_100, "speech")


def test_narrow_speech_is_dropped_but_dull_noise_is_not():
    t = np.arange(44_100) / 44_100
    dull = (0.3 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)[:, None]
    with pytest.raises(DropItem, match="narrow"):
        prepare(dull, 44_100, "speech")
    assert prepare(dull, 44_100, "environment").eff_bw_hz < 1000


def test_ends_are_trimmed_and_long_pauses_shortened():
    sound = voice(3, 1.0)
    silence = np.zeros(2 * 44_100, np.float32)
    item = prepare(stereo(np.concatenate([silence, sound, silence, sound, silence])), 44_100, "speech")
    assert 2.2 < len(item.samples) / RATE_HZ < 2.9


@pytest.mark.parametrize("scale", [0.05, 0.2, 1.0])
def test_level_is_the_same_whatever_came_in(scale):
    item = prepare(scale * noise(4)[:, None], 44_100, "environment")
    level_db = 10 * np.log10(np.mean(item.samples.astype(np.float64) ** 2))
    assert level_db == pytest.approx(LEVEL_DBFS, abs=1.0)
    assert np.abs(item.samples).max() <= PEAK + 1e-6


def test_rumble_and_offset_are_filtered_out():
    item = prepare((noise(5, 3.0) + 0.3)[:, None], 44_100, "environment")
    assert abs(item.samples[RATE_HZ // 2 :].mean()) < 2e-3


def test_opposite_channels_do_not_cancel():
    wave = voice(6)
    assert len(prepare(np.stack([wave, -wave], axis=1), 44_100, "speech").samples) > RATE_HZ


def test_excerpt_is_as_long_as_asked():
    assert len(prepare(noise(7, 3.0)[:, None], 44_100, "music", excerpt_s=1.0).samples) == RATE_HZ


def test_decoder_survives_random_and_truncated_bytes(tmp_path):
    good = save(tmp_path / "a.wav", voice(8)).read_bytes()
    rng = np.random.default_rng(0)
    for suffix in ("wav", "ogg", "flac", "mp3", "aiff"):
        with pytest.raises(AudioError):
            decode(rng.bytes(2000), f"a.{suffix}")
    with pytest.raises(AudioError):
        decode(b"", "a.wav")
    with pytest.raises(AudioError):
        decode(good[:30], "a.wav")


def test_values_that_are_not_numbers_are_refused(tmp_path):
    wave = voice(9)
    wave[100] = np.nan
    path = tmp_path / "nan.wav"
    soundfile.write(path, wave, 44_100, subtype="FLOAT")
    with pytest.raises(AudioError, match="must be finite numbers"):
        decode(path.read_bytes(), "nan.wav")


def test_g722_is_decoded(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "a.g722"
    wave = voice(10, 1.0, 16_000)
    with av.open(str(path), "w", format="g722") as file:
        stream = file.add_stream("g722", rate=16_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray((wave * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    samples, rate_hz = decode(path.read_bytes(), "x/a.g722")
    assert rate_hz == 16_000
    assert samples.shape[1] == 1
    assert abs(len(samples) - 16_000) <= 320
    best = max(np.corrcoef(samples[d : d + 8000, 0], wave[:8000])[0, 1] for d in range(40))
    assert best > 0.9
