"""Residual vector quantisation by a beam: several chains of codes are kept instead of one.

After each codebook, of all chains kept so far and all codes that could follow, the `beam` chains stay whose codes leave
the least: the smallest squared length of what remains of the latent.  After the last codebook the best chain is taken.
At a tie the better chain so far goes first, then the lower code.

Codebook k adds part(c) = codebook[k, c] @ out_weight[k] + out_bias[k], so with a residual r the code c leaves
|r - part(c)|^2 = |r|^2 - 2 (r . part(c) - |part(c)|^2 / 2).  The bracket is what is compared: its sum over a chain is
half of what the chain has explained, and r . part(c) is a product of few dimensions,
(out_weight[k] @ r) . codebook[k, c] + r . out_bias[k].

Contract: latent: float32 [L].  codebook [K, N, D], out_weight [K, D, L], out_bias [K, L].  codes: int16 [K], written.
"""

MAX_BEAM = 16
"""Most chains that are kept."""
