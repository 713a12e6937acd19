"""What the processor that Numba compiles for can do, asked before anything is compiled.

Where LLVM has no instruction for an operation it calls a function of the compiler's or the C library's instead; where
the process has no such function, LLVM aborts.  The answers are from Numba's own target, so NUMBA_CPU_NAME and
NUMBA_CPU_FEATURES count; a feature that is not named is not relied on.
"""

from __future__ import annotations


def has_features(features: str, *names: str) -> bool:
    """Whether all are switched on, and none off, in a list of features as LLVM takes it, like "+avx,-avx2"."""
    given = {feature.strip() for feature in features.split(",")}
    return all(f"+{name}" in given and f"-{name}" not in given for name in names)


def converts_halves(triple: str, features: str) -> bool:
    """Whether vectors of float16 are converted to float32 in an instruction."""
    if is_arm64(triple):
        return _has_neon(features)
    return is_x86(triple) and has_features(features, "avx", "f16c")


def rounds_vectors(triple: str, features: str) -> bool:
    """Whether vectors of float32 are rounded to whole numbers in an instruction."""
    if is_arm64(triple):
        return _has_neon(features)
    return is_x86(triple) and has_features(features, "sse4.1")


def is_x86(triple: str) -> bool:
    """Whether the target is a 64-bit x86 processor; all of these have SSE2."""
    return triple.lower().startswith(("x86_64", "amd64"))


def is_arm64(triple: str) -> bool:
    """Whether the target is a 64-bit Arm processor; all of these have NEON, unless it is switched off."""
    return triple.lower().startswith(("aarch64", "arm64"))


def _has_neon(features: str) -> bool:
    off = {feature.strip() for feature in features.split(",")}
    return not off & {"-neon", "-fp-armv8"}
