"""Snake activation, x + sin^2(alpha x) / alpha, per channel (Ziyin et al. 2020, eq. 3).

Contract of every backend: x, out: float32 [T, C], may be the same array.  alpha: float32 [C], > 0.
"""
