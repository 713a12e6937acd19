"""Sound from a file or a pipe as the frames that an encoder takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from streamcodec.audio.inputs import open_sound
from streamcodec.audio.pcm import RawSound
from streamcodec.audio.resample import StreamingResampler
from streamcodec.audio.sound import check_rate
from streamcodec.codec import Codec
from streamcodec.engine import Float32
from streamcodec.errors import AudioError

MAX_CHANNELS = 8
_BLOCK_SAMPLES = 1 << 16


class FrameReader:
    """Frames of sound at the codec's rate: [channels, hop], the last one filled up with silence.

    Parameters
    ----------
    path : Path
        A sound file, a pipe or `streamcodec.files.STDIN`; it is opened once.
    codec : Codec
        Decides rate and hop.
    raw : RawSound, optional
        The sound is bare samples of this kind.

    Attributes
    ----------
    n_samples, clamped_samples : int
        Samples per channel read so far, and values that were beyond full scale.
    """

    def __init__(self, path: Path, codec: Codec, raw: RawSound | None = None) -> None:
        self._sound = open_sound(path, raw)
        self.info = self._sound.info
        self.n_samples = 0
        self.clamped_samples = 0
        self._hop = codec.frame_samples
        check_rate(self.info, path)
        if self.info.channels > MAX_CHANNELS:
            raise AudioError(f"{path} has {self.info.channels} channels; at most {MAX_CHANNELS} can be coded")
        self._resampler = StreamingResampler(self.info.sample_rate_hz, codec.sample_rate_hz, self.info.channels)

    @property
    def problem(self) -> str | None:
        """What of the file could not be read, or is not as its header says; whole only after the last frame."""
        return self._sound.problem

    def __iter__(self) -> Iterator[Float32]:
        waiting = np.zeros((0, self.info.channels), np.float32)
        for block in self._sound.blocks(_BLOCK_SAMPLES):
            self.n_samples += len(block)
            self.clamped_samples += int((np.abs(block) > 1).sum())
            rows = np.concatenate([waiting, self._resampler.process(np.clip(block, -1, 1))])
            whole = len(rows) // self._hop * self._hop
            yield from self._frames(rows[:whole])
            waiting = rows[whole:]
        rows = np.concatenate([waiting, self._resampler.finish()])
        missing = -len(rows) % self._hop
        yield from self._frames(np.pad(rows, ((0, missing), (0, 0))))

    def _frames(self, rows: Float32) -> Iterator[Float32]:
        for start in range(0, len(rows), self._hop):
            yield np.ascontiguousarray(np.clip(rows[start : start + self._hop], -1, 1).T)
