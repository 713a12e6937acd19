"""The operations of the codec, one folder each: contract, reference, Numba and Triton versions."""
