"""The metrics of the table, and one clip's scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util

from streamcodec.errors import AudioError, ConfigError
from streamcodec.evaluation.alignment import align
from streamcodec.metrics.bandwidth import bandwidth
from streamcodec.metrics.mel_distance import mel_distance
from streamcodec.metrics.pesq import pesq
from streamcodec.metrics.si_sdr import si_sdr
from streamcodec.metrics.stft_distance import stft_distance
from streamcodec.metrics.stoi import stoi
from streamcodec.metrics.visqol import visqol
from streamcodec.metrics.waveforms import Float32

VERSION = 1
"""Raise when a change of alignment or of a metric makes cached scores wrong."""


@dataclass(frozen=True)
class Metric:
    """One column: how it is computed and how it is shown.  `package` and `module`: what it needs installed."""

    name: str
    title: str
    compute: Callable[[Float32, Float32, int], float]
    higher_is_better: bool
    digits: int
    speech_only: bool = False
    package: str | None = None
    module: str | None = None

    @property
    def identity(self) -> str:
        """Name and version, for the cache."""
        return f"{self.name} {metadata.version(self.package) if self.package else VERSION}"


def _visqol_speech(reference: Float32, degraded: Float32, sample_rate_hz: int) -> float:
    return visqol(reference, degraded, sample_rate_hz, mode="speech")


METRICS = {
    metric.name: metric
    for metric in (
        Metric("mel", "mel", mel_distance, False, 3),
        Metric("stft", "STFT", stft_distance, False, 3),
        Metric("visqol", "ViSQOL", visqol, True, 2, package="visqol-python", module="visqol"),
        Metric("si_sdr", "SI-SDR dB", si_sdr, True, 1),
        Metric("pesq", "PESQ", pesq, True, 2, speech_only=True, package="pesq", module="pesq"),
        Metric("stoi", "STOI", stoi, True, 3, speech_only=True, package="pystoi", module="pystoi"),
        Metric(
            "visqol_speech",
            "ViSQOL 16 kHz",
            _visqol_speech,
            True,
            2,
            speech_only=True,
            package="visqol-python",
            module="visqol",
        ),
    )
}
DEFAULT_METRICS = ("mel", "stft", "visqol", "si_sdr", "pesq", "stoi")


def choose_metrics(names: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Those of `names` that can be computed here, and a line for each that cannot.

    Raises
    ------
    ConfigError
        An unknown name.
    """
    chosen: list[str] = []
    notes: list[str] = []
    for name in dict.fromkeys(names):
        if name not in METRICS:
            raise ConfigError(f"there is no metric {name!r}; choose from {', '.join(METRICS)}")
        metric = METRICS[name]
        if metric.module and util.find_spec(metric.module) is None:
            notes.append(
                f"{metric.title} left out: {metric.package} is not installed; "
                "install it with: pip install 'streamcodec[eval]'"
            )
        else:
            chosen.append(name)
    return tuple(chosen), notes


@dataclass(frozen=True)
class Scores:
    """One clip's values by metric name (None: not applicable or not computable) and the bandwidth that was kept."""

    values: dict[str, float | None]
    bandwidth_hz: float


def score(reference: Float32, decoded: Float32, sample_rate_hz: int, category: str, metrics: tuple[str, ...]) -> Scores:
    """Align `decoded` to `reference` [T] and compute `metrics`; those for speech only on speech."""
    aligned = align(reference, decoded, sample_rate_hz)
    values: dict[str, float | None] = {}
    for name in metrics:
        metric = METRICS[name]
        values[name] = None
        if not metric.speech_only or category == "speech":
            try:
                values[name] = metric.compute(reference, aligned, sample_rate_hz)
            except AudioError:
                continue
    return Scores(values, bandwidth(reference, aligned, sample_rate_hz))
