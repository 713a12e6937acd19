"""Dense causal convolution over time, strided or dilated, channels last.

Contract: x: float32 [T, Cin], T a multiple of the stride.  weight: [kernel, Cin, Cout].  bias: [Cout].
out: float32 [T / stride, Cout]; row i has its last tap at input row (i + 1) * stride - 1.
state: float32 [max(0, (kernel - 1) * dilation + 1 - stride), Cin], the input rows that the next step looks back to;
advanced.
"""
