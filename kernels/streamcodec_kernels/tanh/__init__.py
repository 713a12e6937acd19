"""Hyperbolic tangent of a waveform.

Contract: x, out: float32, flat, may be the same array.
"""
