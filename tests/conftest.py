"""What all tests need set before torch and Triton are imported: one thread, and an interpreter that rounds as a card.

Threads cost the tests' small tensors more than they give.  Triton's interpreter multiplies by numpy, hence by a BLAS,
and some (OpenBLAS on processors without AVX-512) round the sum of the same products differently at different places of
a tile: equal codes get unequal scores, and a stream other bits in another row.  A card adds the products of every
element in one order, wherever it stands.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

if hasattr(signal, "SIGHUP"):  # nohup ignores it, and what is tested keeps to that
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def small_preset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The preset "small" is `small_training.CONFIG`, and torch computes on one thread."""
    import torch
    from small_training import CONFIG

    from streamcodec.training import shapes

    monkeypatch.setattr(shapes, "PRESETS", {"small": CONFIG})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def dot(builder: Any, a: Any, b: Any, d: Any, *_: Any) -> Any:
    """`tl.dot`: to each element of `d` its products are added one by one, from the first, each sum rounded."""
    left, right, total = a.data.astype(d.data.dtype), b.data.astype(d.data.dtype), d.data
    for k in range(left.shape[-1]):
        total = total + left[..., :, k, None] * right[..., None, k, :]
    return type(d)(total, d.dtype.scalar)


if os.environ.get("TRITON_INTERPRET") == "1":
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

    launch = GridExecutor.__call__

    def explicit_launch(self: Any, *args: Any, **keywords: Any) -> None:
        """Launch, unless fusion is left to Triton's default: 3.9 warns of that, as 3.10 changes it."""
        assert keywords.get("enable_fp_fusion") is True, f"{self.fn.__name__} is launched without enable_fp_fusion=True"
        launch(self, *args, **keywords)

    assert callable(InterpreterBuilder.create_dot)
    InterpreterBuilder.create_dot = dot
    GridExecutor.__call__ = explicit_launch
