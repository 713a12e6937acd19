"""How the other side's loss decides bitrate and redundancy."""

from __future__ import annotations

from dataclasses import dataclass

from streamcodec.config import CodecConfig

_SMOOTHING = 0.5
_STEP_DOWN_AT, _STEP_UP_BELOW = 0.05, 0.02
_CALM_S = 5.0
_STOOD_STILL_S = 2.0
_COPIES_AT = ((0.12, 3), (0.05, 2), (0.01, 1))
"""Loss from which on so many copies of earlier frames ride along."""


@dataclass
class RateControl:
    """Steps down one codebook for each second of much loss, up again after five seconds of little.

    Parameters
    ----------
    config : CodecConfig
        Model.
    ceiling_bps : float
        Bitrate without loss; it falls to half of it at most.
    copies : int, optional
        Always that many copies; None lets the loss decide.
    """

    config: CodecConfig
    ceiling_bps: float
    copies: int | None = None

    def __post_init__(self) -> None:
        self._most = self.config.codebooks_for(self.ceiling_bps)
        self.n_codebooks = self._most
        self.loss = 0.0
        self._calm_since_s: float | None = None

    @property
    def bitrate_bps(self) -> float:
        """Bitrate of the packets themselves."""
        return self.n_codebooks * self.config.bitrate_step_bps

    @property
    def n_copies(self) -> int:
        """Copies that ride along."""
        if self.copies is not None:
            return self.copies
        return next((count for limit, count in _COPIES_AT if self.loss >= limit), 0)

    @property
    def copy_codebooks(self) -> int:
        """Codebooks of a copy: half of the packet's, 2 to 4 of them where there are so many."""
        return min(max(2, self.n_codebooks // 2), 4, self.n_codebooks)

    def report(self, loss: float, now_s: float) -> None:
        """Take the loss of the last second, 0 to 1."""
        self.loss += _SMOOTHING * (loss - self.loss)
        if self.loss >= _STEP_UP_BELOW:
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        if self.loss >= _STEP_DOWN_AT:
            self.n_codebooks = max(self.n_codebooks - 1, (self._most + 1) // 2)
        elif self._calm_since_s is not None and now_s - self._calm_since_s >= _CALM_S:
            self.n_codebooks = min(self.n_codebooks + 1, self._most)
            self._calm_since_s = now_s


class LossMeter:
    """Loss of what is received, by sequence number, second by second.

    A second that lasted two or more is not judged, nor is the next: this side stood still, and what was lost found no
    room in its own socket.
    """

    def __init__(self) -> None:
        self.loss = 0.0
        self._first = self._highest = -1
        self._received = 0
        self._since_s: float | None = None
        self._stood_still = False

    def received(self, number: int) -> None:
        """Count a new packet."""
        if self._highest < 0:
            self._first = self._highest = number - 1
        self._highest = max(self._highest, number)
        self._received += 1

    def look(self, now_s: float) -> None:
        """Reckon the loss once a second."""
        if self._since_s is None:
            self._since_s = now_s
        passed_s = now_s - self._since_s
        if passed_s < 1:
            return
        self._since_s = now_s
        expected = self._highest - self._first
        judged = passed_s < _STOOD_STILL_S and not self._stood_still
        self._stood_still = passed_s >= _STOOD_STILL_S
        if expected > 0 and judged:
            self.loss = min(max(1 - self._received / expected, 0.0), 1.0)
        self._first, self._received = self._highest, 0
