"""What the card itself can do, measured: the ceilings that kernels are held against."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from streamcodec.bench.gpu.timers import median_ms

_COPY_BYTES = 1 << 30
_SQUARE = 8192


@dataclass(frozen=True)
class Ceilings:
    """Rates of one device.

    Parameters
    ----------
    copy_gb_per_s : float
        Bytes read and written by copying a large array.
    float32_gflop_per_s, tf32_gflop_per_s, bfloat16_gflop_per_s : float
        Product of two large square matrices by the vendor's library.
    """

    copy_gb_per_s: float
    float32_gflop_per_s: float
    tf32_gflop_per_s: float
    bfloat16_gflop_per_s: float

    def product_gflop_per_s(self, precision: str) -> float:
        """Rate of products as the kernels are asked to compute them."""
        return self.float32_gflop_per_s if precision == "ieee" else self.tf32_gflop_per_s

    def floor_ms(self, n_bytes: int, flops: int, precision: str) -> float:
        """Least time for so much traffic and arithmetic, if they overlap."""
        traffic_s = n_bytes / (1e9 * self.copy_gb_per_s)
        return 1e3 * max(traffic_s, flops / (1e9 * self.product_gflop_per_s(precision)))


def measure_ceilings(device: torch.device, copy_bytes: int = _COPY_BYTES, square: int = _SQUARE) -> Ceilings:
    """Measure, with arrays of `copy_bytes` and matrices of `square` rows."""
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        float32 = _product(device, square, torch.float32)
        torch.set_float32_matmul_precision("high")
        tf32 = _product(device, square, torch.float32)
    finally:
        torch.set_float32_matmul_precision(before)
    return Ceilings(_copy(device, copy_bytes), float32, tf32, _product(device, square, torch.bfloat16))


def _copy(device: torch.device, n_bytes: int) -> float:
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * n_bytes / (1e6 * median_ms(lambda: target.copy_(source), device, 20))


def _product(device: torch.device, square: int, dtype: torch.dtype) -> float:
    matrix = torch.randn(square, square, device=device).to(dtype)
    out = torch.empty_like(matrix)
    return 2 * square**3 / (1e6 * median_ms(lambda: torch.mm(matrix, matrix, out=out), device, 10))
