"""Metrics against values computed another way: by hand, by torch, or published with the library."""

import sys

import numpy as np
import pytest

from streamcodec.errors import AudioError, MissingExtraError
from streamcodec.metrics import codebook
from streamcodec.metrics.bandwidth import bandwidth
from streamcodec.metrics.mel_distance import mel_distance
from streamcodec.metrics.pesq import pesq
from streamcodec.metrics.si_sdr import si_sdr
from streamcodec.metrics.spectra import hz_to_mel, magnitude, mel_bands, mel_to_hz
from streamcodec.metrics.stft_distance import stft_distance
from streamcodec.metrics.stoi import stoi
from streamcodec.metrics.visqol import _api, visqol

RATE_HZ = 24_000


def noise(seconds=1.0, seed=0, rate_hz=RATE_HZ):
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate_hz))).astype(np.float32)


def speechlike(seconds=4.0, rate_hz=RATE_HZ):
    """Harmonics of 120 Hz in syllables, with pauses: enough for a speech metric to find utterances."""
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    harmonics = sum(np.sin(2 * np.pi * 120 * k * t * (1 + 0.02 * np.sin(3 * t))) / k for k in range(1, 30))
    syllables = np.clip(np.sin(2 * np.pi * 3 * t), 0, 1) * (np.sin(2 * np.pi * 0.7 * t) > -0.6)
    return (0.1 * harmonics * syllables + 1e-4 * noise(seconds, rate_hz=rate_hz)).astype(np.float32)


def test_mel_scale_has_the_published_values():
    # librosa's documentation of hz_to_mel, mel_to_hz and mel_frequencies(n_mels=40).
    np.testing.assert_allclose(hz_to_mel(np.array([60.0, 110, 220, 440])), [0.9, 1.65, 3.3, 6.6])
    np.testing.assert_allclose(
        mel_to_hz(np.array([1.0, 2, 3, 4, 5])), [66.667, 133.333, 200, 266.667, 333.333], atol=1e-3
    )
    edges_hz = mel_to_hz(np.linspace(0, float(hz_to_mel(np.array(11_025.0))), 40))
    np.testing.assert_allclose(edges_hz[:4], [0, 85.317, 170.635, 255.952], atol=1e-3)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(np.array([0.0, 999, 1001, 12_000]))), [0, 999, 1001, 12_000])


def test_mel_bands_have_unit_area_and_the_librosa_shape():
    bands = mel_bands(RATE_HZ, 2048, 80)
    assert bands.shape == (80, 1025)
    np.testing.assert_allclose(bands.sum(axis=1) * RATE_HZ / 2048, 1, atol=0.05)
    low, peak, high = mel_to_hz(np.linspace(0, float(hz_to_mel(np.array(12_000.0))), 82))[10:13]
    at_hz = 512 * RATE_HZ / 2048
    expected = max(0.0, min((at_hz - low) / (peak - low), (high - at_hz) / (high - peak))) * 2 / (high - low)
    assert bands[10, 512] == pytest.approx(expected)


@pytest.mark.parametrize("window", [32, 512, 2048])
@pytest.mark.parametrize("length", [4096, 5001])
def test_magnitude_equals_torch_stft(window, length):
    torch = pytest.importorskip("torch", reason="torch is the independent implementation")
    x = noise()[:length].astype(np.float64)
    expected = torch.stft(
        torch.from_numpy(x), window, window // 4, window=torch.hann_window(window, dtype=torch.float64),
        center=True, pad_mode="reflect", return_complex=True,
    ).abs().T  # fmt: skip
    np.testing.assert_allclose(magnitude(x, window), expected.numpy(), atol=1e-10)


def test_mel_distance_of_a_tenth_is_one_decade_in_every_band_that_holds_a_bin():
    x = 1000 * noise()
    scales = zip((32, 64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160, 320), strict=True)
    expected = sum(float(mel_bands(RATE_HZ, window, n).any(axis=1).mean()) for window, n in scales)
    assert 6 < expected <= 7
    assert mel_distance(x, x / 10, RATE_HZ) == pytest.approx(expected, abs=1e-3)
    assert mel_distance(x, x, RATE_HZ) == 0


def test_mel_distance_equals_torch():
    torch = pytest.importorskip("torch", reason="torch is the independent implementation")
    x, y = noise(seed=1), speechlike(1.0)
    total = 0.0
    for window, n_mels in zip((32, 64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160, 320), strict=True):
        logs = []
        for wave in (x, y):
            spectrum = torch.stft(
                torch.from_numpy(wave), window, window // 4, window=torch.hann_window(window), return_complex=True
            ).abs()
            bands = torch.from_numpy(mel_bands(RATE_HZ, window, n_mels).astype(np.float32))
            logs.append((bands @ spectrum).clamp(1e-5).log10())
        total += float((logs[0] - logs[1]).abs().mean())
    assert mel_distance(x, y, RATE_HZ) == pytest.approx(total, rel=1e-3)


def test_mel_distance_is_what_training_minimises():
    torch = pytest.importorskip("torch", reason="training needs torch")
    from streamcodec.training.losses import MultiScaleMelLoss

    x, y = noise(seed=1), speechlike(1.0)
    loss = MultiScaleMelLoss(RATE_HZ)(torch.from_numpy(x)[None], torch.from_numpy(y)[None])
    assert mel_distance(x, y, RATE_HZ) == pytest.approx(float(loss), rel=1e-4)


def test_stft_distance_of_a_tenth_is_by_hand():
    x = noise()
    mean = sum(float(magnitude(x.astype(np.float64), window).mean()) for window in (2048, 512))
    assert stft_distance(x, x / 10, RATE_HZ) == pytest.approx(2 * 2 + 0.9 * mean, rel=1e-4)


def test_distances_never_see_below_the_floor():
    silent, faint = np.zeros(RATE_HZ, np.float32), np.full(RATE_HZ, 1e-9, np.float32)
    assert mel_distance(silent, faint, RATE_HZ) == 0
    assert stft_distance(silent, faint, RATE_HZ) == pytest.approx(0, abs=1e-6)


def test_si_sdr_of_orthogonal_noise_is_the_energy_ratio_at_any_scale():
    t = np.arange(RATE_HZ) / RATE_HZ
    x, e = np.sin(2 * np.pi * 100 * t), np.sin(2 * np.pi * 300 * t)
    for scale in (1.0, 0.01, -3.0):
        assert si_sdr((x + 5).astype(np.float32), (scale * (x + 0.1 * e)).astype(np.float32), RATE_HZ) == pytest.approx(
            20, abs=1e-3
        )
    assert si_sdr(x, x, RATE_HZ) == 100
    assert si_sdr(x, e, RATE_HZ) == -100


def test_visqol_of_identity_is_the_published_value_and_noise_lowers_it():
    pytest.importorskip("visqol", reason="needs streamcodec[eval]")
    x = noise(2.0)
    assert visqol(x, x, RATE_HZ) == pytest.approx(4.7321, abs=1e-4)  # visqol-python's conformance table
    assert visqol(x, x + 0.3 * noise(2.0, seed=2), RATE_HZ) < 4.65
    assert visqol(x, x, RATE_HZ, mode="speech") == pytest.approx(5, abs=0.05)


def test_pesq_of_identity_is_the_top_of_the_wideband_scale():
    pytest.importorskip("pesq", reason="needs streamcodec[eval]")
    x = speechlike()
    top = 0.999 + 4 / (1 + np.exp(-1.3669 * 4.5 + 3.8224))  # P.862.2's map of the raw score 4.5
    assert pesq(x, x, RATE_HZ) == pytest.approx(top, abs=1e-3)
    assert pesq(x, x + 0.1 * noise(4.0), RATE_HZ) < 3.5


def test_stoi_is_one_for_identity_and_near_zero_for_noise():
    pytest.importorskip("pystoi", reason="needs streamcodec[eval]")
    x = speechlike()
    assert stoi(x, x, RATE_HZ) == pytest.approx(1, abs=1e-6)
    assert stoi(x, noise(4.0), RATE_HZ) < 0.4


def test_bandwidth_is_where_the_low_pass_is():
    from scipy.signal import firwin, lfilter

    x = noise(2.0)
    assert bandwidth(x, x, RATE_HZ) == 12_000
    low = lfilter(firwin(255, 4000, window=("kaiser", 10), fs=RATE_HZ), 1, x).astype(np.float32)
    assert bandwidth(x, low, RATE_HZ) == pytest.approx(4000, abs=250)
    assert bandwidth(low, low, RATE_HZ) == pytest.approx(4000, abs=500)
    assert bandwidth(x, np.zeros_like(x), RATE_HZ) == 0


@pytest.mark.parametrize("metric", [mel_distance, stft_distance, si_sdr, visqol, pesq, stoi, bandwidth])
def test_metrics_refuse_what_cannot_be_compared(metric):
    good = noise()
    for other in (good[:-1], good[None], np.zeros(0, np.float32), np.full_like(good, np.nan)):
        with pytest.raises(AudioError):
            metric(good, other, RATE_HZ)


@pytest.mark.parametrize(
    ("metric", "module", "package"),
    [(visqol, "visqol", "visqol-python"), (pesq, "pesq", "pesq"), (stoi, "pystoi", "pystoi")],
)
def test_missing_package_names_the_extra(metric, module, package, monkeypatch):
    _api.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed.*streamcodec\[eval\]"):
        metric(speechlike(), speechlike(), RATE_HZ)


@pytest.mark.parametrize("metric", [visqol, pesq, stoi])
def test_speech_metrics_say_when_a_clip_is_too_short(metric):
    if metric is visqol:
        pytest.importorskip("visqol", reason="needs streamcodec[eval]")
    else:
        pytest.importorskip({pesq: "pesq", stoi: "pystoi"}[metric], reason="needs streamcodec[eval]")
    short = speechlike(0.1)
    with pytest.raises(AudioError):
        metric(short, short, RATE_HZ)


def test_codebook_statistics_by_hand():
    uniform = np.tile(np.arange(16), 100)
    assert codebook.usage(uniform, 16) == 1
    assert codebook.entropy_bits(uniform) == pytest.approx(4)
    assert codebook.perplexity(uniform) == pytest.approx(16)
    half = np.array([0, 0, 1, 2] * 50)
    assert codebook.entropy_bits(half) == pytest.approx(1.5)
    assert codebook.usage(half, 16) == pytest.approx(3 / 16)
    assert codebook.perplexity(np.zeros(9, np.int16)) == 1


def test_conditional_entropy_is_zero_when_known_and_whole_when_independent():
    rng = np.random.default_rng(0)
    given = rng.integers(0, 8, 100_000)
    known = codebook.conditional_entropy((given * 3 + 1) % 8, given, 8)
    assert known.floor_bits == pytest.approx(0, abs=1e-9)
    assert known.coder_bits == pytest.approx(0, abs=1e-2)
    free = codebook.conditional_entropy(rng.integers(0, 8, 100_000), given, 8)
    assert free.floor_bits == pytest.approx(3, abs=1e-3)
    assert free.coder_bits == pytest.approx(3, abs=1e-2)


def test_conditional_entropy_holds_the_truth_between_its_ends_when_data_is_scarce():
    rng = np.random.default_rng(0)
    given = rng.integers(0, 1024, 3000)
    free = codebook.conditional_entropy(rng.integers(0, 1024, 3000), given, 1024)
    assert free.floor_bits < 2  # counts see almost every pair once, and take it for knowledge
    assert free.coder_bits == pytest.approx(10, abs=0.1)
    half = codebook.conditional_entropy((given // 2 * 2 + rng.integers(0, 2, 3000)) % 1024, given, 1024)
    assert half.floor_bits < 1 < half.coder_bits


def test_the_coder_spends_what_a_coder_step_by_step_spends():
    codes, given = np.array([0, 1, 0, 0, 1, 0, 0]), np.array([0, 0, 1, 0, 1, 1, 0])
    best = np.inf
    for weight in (1, 4, 16, 64, 256, 1024):
        bits, pairs, contexts, singles = 0.0, {}, {}, {}
        for i, (c, g) in enumerate(zip(codes.tolist(), given.tolist(), strict=True)):
            order_0 = (singles.get(c, 0) + 0.5) / (i + 1)
            bits -= np.log2((pairs.get((g, c), 0) + weight * order_0) / (contexts.get(g, 0) + weight))
            pairs[g, c] = pairs.get((g, c), 0) + 1
            contexts[g] = contexts.get(g, 0) + 1
            singles[c] = singles.get(c, 0) + 1
        best = min(best, bits / len(codes))
    assert codebook.conditional_entropy(codes, given, 2).coder_bits == pytest.approx(min(best, 1))


def test_codebook_use_does_not_join_frames_of_two_streams():
    a, b = np.array([[0, 1, 0, 1, 0, 1]]), np.array([[1, 0, 1, 0, 1, 0]])
    (book,) = codebook.codebook_use([a, b], 2)
    assert book.given_previous.floor_bits == 0
    assert book.given_coarser is None
    with pytest.raises(AudioError):
        codebook.codebook_use([], 2)


def test_bitrate_efficiency_is_entropy_over_bits():
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, 16, 50_000), rng.integers(0, 4, 50_000)])
    assert codebook.bitrate_efficiency([codes], 16) == pytest.approx((4 + 2) / 8, abs=1e-3)
