"""Reading sound files of any common format: soundfile first, PyAV for the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamcodec.errors import AudioError, MissingExtraError
from streamcodec.metrics.waveforms import Float32

SUFFIXES = frozenset({".aac", ".aif", ".aiff", ".au", ".caf", ".flac", ".g722", ".m4a", ".mka", ".mp3", ".mp4"}) | {
    ".oga", ".ogg", ".opus", ".w64", ".wav", ".webm", ".wma",
}  # fmt: skip


def read_sound(path: Path) -> tuple[Float32, int]:
    """A file's samples, channels averaged, float32 [T], and its rate in Hz.

    Raises
    ------
    AudioError
        The file cannot be read, or holds no sound.
    MissingExtraError
        Its format needs PyAV, which is not installed.
    """
    import soundfile

    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        mono = samples.mean(axis=1)
    except (soundfile.LibsndfileError, OSError, TypeError):
        mono, rate_hz = _read_with_av(path)
    if not mono.size:
        raise AudioError(f"{path} holds no sound")
    return np.nan_to_num(mono).astype(np.float32), int(rate_hz)


def _read_with_av(path: Path) -> tuple[Float32, int]:
    if not path.is_file():
        raise AudioError(f"{path} is not a file that can be read")
    try:
        import av
    except ImportError:
        raise MissingExtraError("av", "eval") from None
    blocks: list[Float32] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="flt", layout="mono")
            for frame in container.decode(stream):
                blocks += [out.to_ndarray().reshape(-1).astype(np.float32) for out in resampler.resample(frame)]
            rate_hz = stream.codec_context.sample_rate
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise AudioError(f"{path} is not a sound file that can be read: {error}") from None
    return (np.concatenate(blocks) if blocks else np.zeros(0, np.float32)), rate_hz
