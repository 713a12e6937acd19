"""Snake, causal convolution to one channel, hyperbolic tangent: the decoder's last layers.

Contract: x: [T, C].  alpha: [C], > 0.  weight: [kernel, C, 1].  bias: [1].  out: [T, 1].
state: [kernel - 1, C], the rows after Snake that the next step looks back to; advanced.
"""
