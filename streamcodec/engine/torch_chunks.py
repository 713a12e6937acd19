"""Many frames of many streams in one call of the torch modules, for throughput: what a GPU needs to be busy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from streamcodec.engine import Float32, Int16
from streamcodec.engine.beam import checked_beam
from streamcodec.engine.torch import TorchEngine


class ChunkEncoder:
    """B streams that are encoded side by side, any whole number of frames at a time.

    The same function of the sound as `TorchEngine.encode_step` frame by frame; sums are rounded differently, so a code
    may differ where two are nearly as good.

    Parameters
    ----------
    engine : TorchEngine
        Model and device.
    streams : int
        B.
    n_codebooks : int
        K of the codes.
    beam : int
        As in `Engine.encode_step`.
    """

    def __init__(self, engine: TorchEngine, streams: int, n_codebooks: int, beam: int = 1) -> None:
        self._engine = engine
        self._n_codebooks = n_codebooks
        self._beam = checked_beam(beam)
        self._state = engine.model.encoder.init_state(streams)

    def keep(self, streams: Sequence[int]) -> None:
        """Go on with some of the streams only; they are numbered anew in the order given."""
        self._state = self._state[torch.tensor(streams, dtype=torch.int64, device=self._state.device)]

    @torch.no_grad()
    def encode(self, samples: Float32) -> Int16:
        """Codes int16 [B, F, K] of the next samples, float32 [B, F * hop_samples]."""
        model = self._engine.model
        latent = model.encoder.step(torch.from_numpy(samples).to(self._engine.device).unsqueeze(-1), self._state)
        codes: Int16 = model.quantizer.encode(latent, self._n_codebooks, self._beam).to(torch.int16).cpu().numpy()
        return np.ascontiguousarray(codes)
