"""Make a training item of a decoded file: mono, 24 kHz, no rumble, no silence, one level; or say why it is dropped."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from streamcodec.training.corpus.measure import clipped_share, effective_bandwidth_hz, frame_levels_db

Float32 = NDArray[np.float32]

RATE_HZ = 24_000
HIGH_PASS_HZ = 25.0
LEVEL_DBFS = -23.0
MAX_GAIN_DB = 30.0
PEAK = 0.89
MAX_CLIPPED_SHARE = 0.01
MIN_SPEECH_BANDWIDTH_HZ = 3500.0
MIN_ACTIVE_S = 0.25
SILENCE_DBFS = -60.0

_FRAME = RATE_HZ // 50
_HIGH_PASS = butter(2, HIGH_PASS_HZ, "highpass", fs=RATE_HZ, output="sos")


class DropItem(Exception):
    """The file is not used; the text says why."""


@dataclass(frozen=True)
class Prepared:
    """An item that is ready to be written: float32 [T] at 24 kHz, and what was measured or done."""

    samples: Float32
    eff_bw_hz: float
    gain_db: float


def prepare(samples: Float32, rate_hz: int, category: str, excerpt_s: float = 0.0) -> Prepared:
    """Condition a decoded file.

    Parameters
    ----------
    samples : float32 [T, C]
        The file.
    rate_hz : int
        Its rate.
    category : str
        Speech below 3.5 kHz of bandwidth is dropped; other sounds may be dull by nature.
    excerpt_s : float
        Keep only this much from the middle; 0 keeps all.

    Raises
    ------
    DropItem
        Clipped, silent, too short or too narrow.
    """
    clipped = clipped_share(samples)
    if clipped > MAX_CLIPPED_SHARE:
        raise DropItem(f"clipped: {100 * clipped:.1f} % of the samples")
    mono = to_mono(samples)
    wave = soxr.resample(mono, rate_hz, RATE_HZ) if rate_hz != RATE_HZ else mono
    if len(wave) < _FRAME:
        raise DropItem(f"short: {len(wave) / RATE_HZ:.2f} s")
    wave = sosfilt(_HIGH_PASS, wave).astype(np.float32)
    wave, loud_db = trim_silence(wave)
    bandwidth_hz = effective_bandwidth_hz(mono, rate_hz)
    if category == "speech" and bandwidth_hz < MIN_SPEECH_BANDWIDTH_HZ:
        raise DropItem(f"narrow: {bandwidth_hz:.0f} Hz")
    wanted = round(excerpt_s * RATE_HZ)
    if 0 < wanted < len(wave):
        start = (len(wave) - wanted) // 2
        wave = wave[start : start + wanted]
    gain_db = min(LEVEL_DBFS - loud_db, MAX_GAIN_DB, 20 * float(np.log10(PEAK / max(np.abs(wave).max(), 1e-9))))
    return Prepared(wave * np.float32(10 ** (gain_db / 20)), bandwidth_hz, round(gain_db, 2))


def to_mono(samples: Float32) -> Float32:
    """Mean of the channels [T, C] -> [T], or the loudest one where the mean cancels."""
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    mean: Float32 = samples.mean(axis=1)
    power = np.square(samples, dtype=np.float64).mean(axis=0)
    if np.square(mean, dtype=np.float64).mean() < 0.1 * power.max():
        return np.ascontiguousarray(samples[:, int(power.argmax())])
    return mean


def trim_silence(wave: Float32) -> tuple[Float32, float]:
    """Cut silence off both ends and out of long pauses; returns the rest and the level of its loud parts in dBFS.

    A 20 ms frame is silent when it is 45 dB below the loud frames (95th percentile) or below -60 dBFS and 25 dB below
    them.  60 ms stay before and 160 ms after the sound; of a pause longer than a second half a second stays.

    Raises
    ------
    DropItem
        There is no sound, or less than a quarter of a second of it.
    """
    levels = frame_levels_db(wave, _FRAME)
    loud = float(np.percentile(levels, 95))
    loud = max(loud, float(np.sort(levels)[-min(5, len(levels))]))
    if loud < SILENCE_DBFS:
        raise DropItem(f"silent: {loud:.0f} dBFS")
    active = (levels > loud - 45) & ((levels > SILENCE_DBFS) | (levels > loud - 25))
    if active.sum() * _FRAME < MIN_ACTIVE_S * RATE_HZ:
        raise DropItem(f"short: {active.sum() * _FRAME / RATE_HZ:.2f} s of sound")
    loud_parts = levels[levels > loud - 25]
    level_db = 10 * float(np.log10(np.mean(10 ** (loud_parts.astype(np.float64) / 10))))
    keep = np.zeros(len(levels), bool)
    at = np.flatnonzero(active)
    keep[max(0, at[0] - 3) : at[-1] + 9] = True
    for before, after in itertools.pairwise(at):
        if after - before > 50:
            keep[before + 13 : after - 12] = False
    return wave[np.repeat(keep, _FRAME)[: len(wave)]], level_db
