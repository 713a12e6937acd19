"""Snake, causal depthwise dilated convolution, Snake: the elementwise part of a residual unit, for training.

    u[t] = snake(x[t], alpha_in)
    v[t] = bias + sum_j weight[j] * u[t - (kernel - 1 - j) * dilation],  u before the clip = 0
    y[t] = snake(v[t], alpha_out)

x, y: float32 [B, T, C].  weight: [kernel, C].  bias, alpha_in, alpha_out: [C], alphas > 0.
With snake(x, a) = x + sin^2(a x) / a (Ziyin et al. 2020, eq. 3).

Backward gives the gradients of x, alpha_in, weight, bias and alpha_out from that of y, and x and v.
"""
