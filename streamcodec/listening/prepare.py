"""Make a listening test: stimuli, the page, and the key that tells which stimulus is what."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from scipy.signal import fftconvolve, firwin, kaiserord

from streamcodec.errors import ConfigError
from streamcodec.evaluation.alignment import align
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs import Spec, open_codec
from streamcodec.evaluation.report import flac_base64
from streamcodec.files import write_text
from streamcodec.listening.loudness import loudness_lufs
from streamcodec.metrics.waveforms import Float32, resampled

REFERENCE = "reference"
ANCHORS_HZ = {"anchor 3.5 kHz": 3500, "anchor 7 kHz": 7000}
MOST_STIMULI = 12
LEVEL_LUFS = -23.0
PEAK = 0.99
PAGE, KEY, RESULTS = "index.html", "key.json", "results"
_TRANSITION_HZ, _STOPBAND_DB = 500.0, 60.0


@dataclass(frozen=True)
class Trial:
    """One clip in all its versions by condition, hidden reference and anchors included; all equally loud."""

    clip: Clip
    versions: dict[str, Float32]


def anchor(waveform: Float32, sample_rate_hz: int, cutoff_hz: float) -> Float32:
    """`waveform` [T] low-passed: flat to `cutoff_hz`, 60 dB down 500 Hz above, without delay."""
    taps, beta = kaiserord(_STOPBAND_DB, _TRANSITION_HZ / (sample_rate_hz / 2))
    low_pass = firwin(taps | 1, cutoff_hz + _TRANSITION_HZ / 2, window=("kaiser", beta), fs=sample_rate_hz)
    filtered: Float32 = fftconvolve(waveform, low_pass, mode="same").astype(np.float32)
    return filtered


def make_trial(clip: Clip, specs: list[Spec]) -> Trial:
    """All versions of one clip, aligned in time, at -23 LUFS or, where a peak forbids it, all as much below."""
    rate_hz = clip.sample_rate_hz
    versions = {REFERENCE: clip.samples}
    for name, cutoff_hz in ANCHORS_HZ.items():
        if cutoff_hz + _TRANSITION_HZ < rate_hz / 2:
            versions[name] = anchor(clip.samples, rate_hz, cutoff_hz)
    for spec in dict.fromkeys(specs):
        coded = open_codec(spec).code(clip)
        versions[str(spec)] = align(clip.samples, resampled(coded.samples, coded.sample_rate_hz, rate_hz), rate_hz)
    if len(versions) > MOST_STIMULI:
        raise ConfigError(
            f"{len(specs)} codecs make {len(versions)} stimuli; a listener can compare {MOST_STIMULI} at once, "
            f"so choose at most {MOST_STIMULI - 1 - len(ANCHORS_HZ)}"
        )
    for name, version in versions.items():
        level = loudness_lufs(version, rate_hz)
        if np.isfinite(level):
            versions[name] = version * np.float32(10 ** ((LEVEL_LUFS - level) / 20))
    peak = max(float(np.abs(version).max()) for version in versions.values())
    if peak > PEAK:
        versions = {name: version * np.float32(PEAK / peak) for name, version in versions.items()}
    return Trial(clip, versions)


def write_test(
    folder: Path, clips: list[Clip], specs: list[Spec], *, seed: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:  # fmt: skip
    """Write the page and the key into `folder`.

    The page holds all sound under names that tell nothing, and shuffles trials and stimuli anew for each listener.

    Raises
    ------
    ConfigError
        There are already results in `folder`, or too many codecs.
    """
    if any((folder / RESULTS).glob("*.json")):
        raise ConfigError(f"{folder} already holds results; prepare a new test in another folder")
    rng = random.Random(seed) if seed is not None else secrets.SystemRandom()
    key: dict[str, dict[str, str]] = {}
    shown = []
    for done, clip in enumerate(clips):
        progress(done, len(clips))
        trial = make_trial(clip, specs)
        stimuli = []
        for condition, version in trial.versions.items():
            name = f"{rng.getrandbits(48):012x}"
            key[name] = {"condition": condition, "clip": clip.name, "category": clip.category}
            stimuli.append({"id": name, "flac": flac_base64(version, clip.sample_rate_hz)})
        rng.shuffle(stimuli)
        reference = flac_base64(trial.versions[REFERENCE], clip.sample_rate_hz)
        shown.append({"reference": reference, "stimuli": stimuli})
    test_id = f"{rng.getrandbits(48):012x}"
    page = resources.files("streamcodec.listening").joinpath("page.html").read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps({"test": test_id, "trials": shown}).replace("</", "<\\/")
    write_text(folder / PAGE, Template(page).substitute(data=data))
    write_text(folder / KEY, json.dumps({"test": test_id, "stimuli": key}, indent=1))
    (folder / RESULTS).mkdir(exist_ok=True)
    progress(len(clips), len(clips))
