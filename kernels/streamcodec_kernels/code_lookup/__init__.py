"""Latent of a frame's codes: the sum over codebooks of code @ out_weight + out_bias.

Contract: codes: int16 [K], each from 0 to N - 1; K = 0 gives zeros.  codebook [K, N, D], out_weight [K, D, L],
out_bias [K, L].  latent: float32 [L], written.
"""
