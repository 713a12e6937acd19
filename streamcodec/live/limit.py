"""A limit on what is answered to those that have proved nothing yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class AnswerLimit:
    """So many answers a second for each source, and a few more at once; its memory is bounded.

    Parameters
    ----------
    per_s : float
        Answers a second.
    burst : float
        Answers at once after a pause.
    sources : int
        Sources remembered; beyond them the one that asked longest ago is forgotten.

    Examples
    --------
    >>> limit = AnswerLimit(per_s=1, burst=2)
    >>> [limit.allows("here", 0.0) for _ in range(3)], limit.allows("there", 0.0), limit.allows("here", 1.0)
    ([True, True, False], True, True)
    """

    def __init__(self, per_s: float = 10.0, burst: float = 20.0, sources: int = 1024) -> None:
        self.per_s, self.burst, self.sources = per_s, burst, sources
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def allows(self, source: Hashable, now_s: float) -> bool:
        """Whether one more answer may go there; it counts as given."""
        left, since_s = self._left.pop(source, (self.burst, now_s))
        left = min(self.burst, left + self.per_s * max(0.0, now_s - since_s))
        allowed = left >= 1
        self._left[source] = left - allowed, now_s
        if len(self._left) > self.sources:
            self._left.popitem(last=False)
        return allowed
