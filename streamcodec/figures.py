"""Empty pictures, and pictures as PNG, by matplotlib where that is installed."""

from __future__ import annotations

import io
from typing import Any

from streamcodec.errors import MissingExtraError

DPI = 120


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure, sizes in inches.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "eval") from None
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def png(figure: Any) -> bytes:
    """The picture; equal figures give equal bytes."""
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
