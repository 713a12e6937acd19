"""Ways to run the network, one Engine each.

An engine is made from a config and a mapping of arrays (names and shapes: `streamcodec.architecture`) and holds no
stream: whoever calls it owns the state, so one engine serves any number of streams from any number of threads.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamcodec.config import CodecConfig

Float32 = NDArray[np.float32]
Int16 = NDArray[np.int16]


class Engine(Protocol):
    """Runs B streams one frame at a time.

    State is float32 [B, values], one row a stream: all zeros at the start, advanced in place, of fixed size.
    Copying a row copies a stream; zeroing it resets the stream.
    """

    name: str
    config: CodecConfig

    def encoder_state(self, streams: int = 1) -> Float32:
        """Zeroed state of `streams` encoders, [streams, values]."""
        ...

    def decoder_state(self, streams: int = 1) -> Float32:
        """Zeroed state of `streams` decoders, [streams, values]."""
        ...

    def encode_step(self, frames: Float32, state: Float32, codes: Int16, beam: int = 1) -> None:
        """Encode one frame of every stream.

        frames: [B, hop_samples].  state: [B, values], advanced.  codes: [B, K] written, K from 1 to
        n_codebooks: the first K codebooks are used.  beam: chains of codes that are kept
        (`streamcodec_kernels.beam_search`); with 1 the nearest code of each codebook is taken in turn.
        """
        ...

    def decode_step(self, codes: Int16, state: Float32, frames: Float32) -> None:
        """Decode one frame of every stream.

        codes: [B, K]; K = 0 means that the frame was lost: the latent is zero and the network conceals.
        state: [B, values], advanced.  frames: [B, hop_samples] written.
        """
        ...
