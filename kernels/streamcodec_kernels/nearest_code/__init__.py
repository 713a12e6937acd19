"""Residual vector quantisation: the whole chain of codebooks for one vector.

For each codebook k: project the residual to D values, find the code with the largest dot product (codes have unit
length, so that is the nearest by cosine; ties go to the lowest index), subtract that code's projection back.

Contract: latent: float32 [L].  in_weight [K, L, D], in_bias [K, D], codebook [K, N, D], out_weight [K, D, L],
out_bias [K, L].  codes: int16 [K], written.
"""
