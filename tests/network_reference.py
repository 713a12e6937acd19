"""The reference network under the name that tests use."""

from __future__ import annotations

from streamcodec.bench.reference import decode_clip, encode_clip, random_weights, run_layers

__all__ = ["decode_clip", "encode_clip", "random_weights", "run_layers"]
