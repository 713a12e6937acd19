"""Sample-rate conversion of a stream, exact in length and aligned in time (libsoxr)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from streamcodec.errors import AudioError

Float32 = NDArray[np.float32]
Quality = Literal["QQ", "LQ", "MQ", "HQ", "VHQ"]

_FLUSH_SAMPLES = 4096


def resampled_length(n_samples: int, in_hz: int, out_hz: int) -> int:
    """Samples at `out_hz` of `n_samples` at `in_hz`, rounded, halves up.

    Examples
    --------
    >>> resampled_length(44_100, 44_100, 24_000)
    24000
    """
    return (2 * n_samples * out_hz + in_hz) // (2 * in_hz)


class StreamingResampler:
    """Converts a stream from one rate to another; any chunking gives the same samples.

    Sample n of the input is at n * out_hz / in_hz of the output: the filter's delay shows only in that output comes
    later, never in where it is.  Equal rates pass the samples on untouched.

    Parameters
    ----------
    in_hz, out_hz : int
        Rates.
    channels : int
        Channels, converted alike.
    quality : str
        "HQ" for files, where output may lag tens of milliseconds behind the input; "LQ" lags about 20 ms, "QQ" less
        than one, without a filter against aliasing.
    """

    def __init__(self, in_hz: int, out_hz: int, channels: int, quality: Quality = "HQ") -> None:
        if min(in_hz, out_hz) < 1 or channels < 1:
            raise AudioError(f"{in_hz} Hz to {out_hz} Hz, {channels} channels; rates and channels are 1 or more.")
        self.in_hz, self.out_hz, self.channels, self.quality = in_hz, out_hz, channels, quality
        self.reset()

    def reset(self) -> None:
        """Forget the stream and begin another."""
        self.n_in_samples = 0
        self.n_out_samples = 0
        self._finished = False
        self._soxr = None
        if self.in_hz != self.out_hz:
            self._soxr = soxr.ResampleStream(
                self.in_hz, self.out_hz, self.channels, dtype="float32", quality=self.quality
            )

    @property
    def pending_samples(self) -> int:
        """Output samples that are due for the input so far and still to come."""
        return resampled_length(self.n_in_samples, self.in_hz, self.out_hz) - self.n_out_samples

    def process(self, samples: Float32) -> Float32:
        """Convert a chunk: float32 [T, channels] in, float32 [any, channels] out, which may lag behind.

        Raises
        ------
        AudioError
            The shape or the dtype is wrong, or the stream was finished.
        """
        if self._finished:
            raise AudioError("the resampler has finished its stream; reset it to begin another.")
        if samples.ndim != 2 or samples.shape[1] != self.channels or samples.dtype != np.float32:
            raise AudioError(
                f"samples are {samples.dtype} {list(samples.shape)}; this resampler takes float32 [T, {self.channels}]."
            )
        self.n_in_samples += len(samples)
        out = samples.copy() if self._soxr is None else self._convert(samples)
        self.n_out_samples += len(out)
        return out

    def finish(self, n_out_samples: int | None = None) -> Float32:
        """Last samples of the stream: float32 [any, channels].

        With them the output is exactly round(T * out_hz / in_hz) samples for T of input; or, where given,
        `n_out_samples`, the input being followed by silence.

        Raises
        ------
        AudioError
            `n_out_samples` is less than what already came out, or the stream was finished.
        """
        if self._finished:
            raise AudioError("the resampler has finished its stream; reset it to begin another.")
        if n_out_samples is None:
            n_out_samples = resampled_length(self.n_in_samples, self.in_hz, self.out_hz)
        missing = n_out_samples - self.n_out_samples
        if missing < 0:
            raise AudioError(f"{self.n_out_samples} samples already came out; {n_out_samples} cannot be the whole.")
        self._finished = True
        self.n_out_samples = n_out_samples
        out = np.zeros((missing, self.channels), np.float32)
        at_once = max(1, _FLUSH_SAMPLES * self.in_hz // max(self.in_hz, self.out_hz))
        silence = np.zeros((at_once, self.channels), np.float32)
        done = missing if self._soxr is None else 0
        while done < missing:
            part = self._convert(silence)[: missing - done]
            out[done : done + len(part)] = part
            done += len(part)
        return out

    def _convert(self, samples: Float32) -> Float32:
        assert self._soxr is not None
        out: Float32 = self._soxr.resample_chunk(np.ascontiguousarray(samples))
        return out
