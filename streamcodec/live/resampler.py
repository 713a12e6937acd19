"""Sample-rate conversion with less than a millisecond of delay and a speed that may change at any time."""

from __future__ import annotations

from math import ceil

import numpy as np

from streamcodec.engine import Float32
from streamcodec.errors import AudioError
from streamcodec_kernels.fractional_resample import sinc_table
from streamcodec_kernels.fractional_resample._numba import resample

MAX_SPEED_CHANGE = 0.005
"""Most that `speed` may differ from 1: half a percent, a twelfth of a semitone."""

_HALF_TAPS = 16
_EDGE = 0.95


class ShortResampler:
    """Converts a mono stream from one rate to another with a delay of 16 samples of the lower rate.

    Output m is the input at `input_position`, counted from the stream's first sample; before it there was silence.
    All memory is there from the start.

    Parameters
    ----------
    in_hz, out_hz : int
        Rates.
    max_in_samples : int
        Most samples that one call of `process` may get.
    """

    def __init__(self, in_hz: int, out_hz: int, max_in_samples: int) -> None:
        if min(in_hz, out_hz, max_in_samples) < 1:
            raise AudioError(f"{in_hz} Hz to {out_hz} Hz, blocks of {max_in_samples}; all of them are 1 or more.")
        self.in_hz, self.out_hz, self.max_in_samples = in_hz, out_hz, max_in_samples
        narrow = max(1.0, in_hz / out_hz)
        self.delay_samples = ceil(_HALF_TAPS * narrow)
        self._table = sinc_table(self.delay_samples, (_EDGE if in_hz != out_hz else 1.0) / narrow)
        slack = 2 * self.delay_samples + ceil(narrow) + 2
        self._buffer = np.zeros(max_in_samples + slack, np.float32)
        self._out = np.zeros(ceil((max_in_samples + slack) * out_hz / in_hz / (1 - MAX_SPEED_CHANGE)) + 1, np.float32)
        self._cursor = np.zeros(2)
        self._speed = 1.0
        self.reset()

    def reset(self) -> None:
        """Begin another stream; the speed stays."""
        self._buffer[:] = 0
        self._cursor[:] = 0, self.delay_samples - 1
        self._n_in = 0

    @property
    def max_out_samples(self) -> int:
        """Most samples that one call of `process` gives."""
        return len(self._out)

    @property
    def delay_ms(self) -> float:
        """How long a sample waits for the ones after it."""
        return 1000 * self.delay_samples / self.in_hz

    @property
    def speed(self) -> float:
        """Input played per time: above 1 fewer samples come out."""
        return self._speed

    @speed.setter
    def speed(self, value: float) -> None:
        if not abs(value - 1) <= MAX_SPEED_CHANGE + 1e-12:
            raise AudioError(f"speed is {value}; it stays within {MAX_SPEED_CHANGE:g} of 1.")
        self._speed = value

    @property
    def step(self) -> float:
        """Input samples between two outputs."""
        return self.in_hz / self.out_hz * self._speed

    @property
    def input_position(self) -> float:
        """Where in the input the next output is, in samples from the first."""
        return self._n_in - float(self._cursor[1]) + float(self._cursor[0]) + self.delay_samples - 1

    @property
    def pending_samples(self) -> float:
        """Input samples, with their fraction, from the next output's place to the end of the input so far."""
        return self._n_in - self.input_position

    @property
    def pending_outputs(self) -> float:
        """Outputs, with their fraction, that come before the one at the next input sample."""
        return self.pending_samples / self.step

    def process(self, samples: Float32) -> Float32:
        """Convert contiguous float32 [T]; what comes out is a view that the next call overwrites.

        Raises
        ------
        AudioError
            More samples than `max_in_samples`, or not float32 [T].
        """
        if samples.ndim != 1 or samples.dtype != np.float32 or len(samples) > self.max_in_samples:
            raise AudioError(
                f"samples are {samples.dtype} {list(samples.shape)}; give float32 [T], T up to {self.max_in_samples}."
            )
        self._n_in += len(samples)
        count = resample(samples, self._buffer, self._cursor, self.step, self._table, self._out)
        return self._out[:count]
