"""One live stream: its state as a flat vector that is checked where it is assigned, and the check of its samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamcodec.checkpoint import LARGEST
from streamcodec.engine import Float32
from streamcodec.engine.alone import OneThread, alone
from streamcodec.errors import AudioError


class LiveStream(OneThread):
    """State as one flat float32 vector: the engine's, then a few values of our own; one thread at a time.

    A copy, a deep copy and a pickle go on from the same point, bit for bit.  Copies share the codec; a pickle takes it
    along.

    Parameters
    ----------
    engine_state : array of float32, [1, values]
        A new stream's.
    own_values : int
        How many follow.
    """

    def __init__(self, engine_state: Float32, own_values: int) -> None:
        super().__init__()
        self._engine_values = engine_state.shape[1]
        self._vector = np.zeros(self._engine_values + own_values, np.float32)

    @property
    def state(self) -> Float32:
        """Everything the stream remembers, float32 of fixed size; `copy()` it to keep it, assign to restore it.

        Raises
        ------
        AudioError
            What is assigned is no state of such a stream; the stream's own is untouched.
        BusyError
            Another thread uses the stream.
        """
        return self._vector

    @state.setter
    @alone
    def state(self, value: Float32) -> None:
        try:
            value = np.asarray(value)
        except (ValueError, TypeError):  # lists of several lengths, a tensor that is elsewhere
            value = np.asarray(None)
        if value.shape != self._vector.shape or value.dtype != np.float32:
            raise self._no_state(f"is {value.dtype} {value.shape}; this stream's is float32 {self._vector.shape}")
        wrong = ~(np.abs(value) <= LARGEST)  # also where it is no number
        if wrong.any():
            at = int(wrong.argmax())
            raise self._no_state(f"holds {value[at]:g} at {at}; values are finite and go up to {LARGEST:g}")
        problem = self._problem(value[self._engine_values :])
        if problem:
            raise self._no_state(problem)
        self._vector[:] = value

    @alone
    def reset(self) -> None:
        """Forget everything, as if just started."""
        self._vector[:] = 0

    def _problem(self, own: Float32) -> str | None:
        """What makes these finite values of our own impossible, if anything does."""
        raise NotImplementedError

    def _no_state(self, problem: str) -> AudioError:
        return AudioError(f"state {problem}: restore only what the same kind of stream of the same model gave")

    @property
    def _engine_state(self) -> Float32:
        return self._vector[: self._engine_values].reshape(1, -1)

    @property
    def _own(self) -> Float32:
        return self._vector[self._engine_values :]

    @alone
    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name != "_busy"}
        return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in kept.items()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__.update(kept)

    def __copy__(self) -> LiveStream:
        twin = object.__new__(type(self))
        twin.__setstate__(self.__getstate__())
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> LiveStream:
        return self.__copy__()


def checked_samples(samples: Float32, length: int | None) -> Float32:
    """Refuse what is no mono float32 audio; samples beyond +-1 are clamped to +-1.

    Raises
    ------
    AudioError
        Wrong type, shape, dtype or length, or a value that is not finite.
    """
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float32:
        kind = samples.dtype if isinstance(samples, np.ndarray) else type(samples).__name__
        raise AudioError(f"samples are {kind}; give a float32 array in [-1, 1] (int16: divide by 32768)")
    if samples.ndim != 1:
        raise AudioError(f"samples have shape {samples.shape}; give one channel, [T], a stream for each")
    if length is not None and len(samples) != length:
        raise AudioError(f"a frame of {len(samples)} samples; give exactly {length}, or use push() for any length")
    if length is None and not len(samples):
        raise AudioError("no samples; give at least one")
    peak = np.abs(samples).max()
    if not np.isfinite(peak):
        at = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise AudioError(f"sample {at} is {samples[at]}; only finite values can be coded")
    return np.clip(samples, -1, 1) if peak > 1 else samples
