"""Matrix product over sliding windows, with packed weights: every dense convolution is one of these.

Row i of the left matrix is the `depth` values from `step * i`: rows may overlap (step < depth), as the windows of
a channels-last convolution do, and no copy of them is made.

Contract: x: float32 [streams, values].  weight: float32 or float16 [depth, columns].  bias: float32 [columns].
out: float32 [streams, rows, columns] = windows @ weight + bias, or that added to out; sums are float32.
"""
