"""Measures of a codec, one a file: `name(reference, degraded, sample_rate_hz) -> float` on float32 [T]."""
