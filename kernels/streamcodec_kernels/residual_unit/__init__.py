"""Residual unit: Snake, dilated causal depthwise convolution, Snake, 1x1 convolution, added to the input.

Contract: x, out: float32 [T, C].  alpha1, alpha2: [C], > 0.  depthwise: [kernel, C], bias [C], the last tap at the
present row.  mix: [C, C], in to out, bias [C].  state: float32 [(kernel - 1) * dilation, C], the rows after the first
Snake that the next step looks back to; advanced.
"""
