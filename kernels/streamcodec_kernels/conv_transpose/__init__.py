"""Transposed causal convolution over time (overlap-add), channels last.

Contract: x: float32 [T, Cin].  weight: [Cin, kernel, Cout].  bias: [Cout].  out: float32 [T * stride, Cout]:
weight[:, j] of input row i is added to output row i * stride + j, the bias once to each row.
state: float32 [ceil(kernel / stride) - 1, Cin], the input rows that still reach into the next step; advanced.
"""
