"""How near to a tie the codes were that two engines chose differently."""

from __future__ import annotations

import numpy as np

from streamcodec.architecture import encoder_layers
from streamcodec.bench.reference import Float32, Int16, Weights, run_layers
from streamcodec.config import CodecConfig


def margin(latent: Float32, chosen: Int16, k: int, rival: int, arrays: Weights) -> float:
    """How much worse the rival of code chosen[k] scores, as a share of the query's length; float64."""
    residual = latent.astype(np.float64)
    for j in range(k):
        residual -= arrays[f"quantizer.{j}.codebook"][chosen[j]] @ arrays[f"quantizer.{j}.out_weight"].astype(float)
        residual -= arrays[f"quantizer.{j}.out_bias"]
    query = residual @ arrays[f"quantizer.{k}.in_weight"] + arrays[f"quantizer.{k}.in_bias"]
    codes = arrays[f"quantizer.{k}.codebook"][[chosen[k], rival]].astype(float)
    scores = codes @ query
    return float(abs(scores[0] - scores[1]) / np.linalg.norm(query))


def near_ties(config: CodecConfig, arrays: Weights, frames: Float32, codes: Int16, other: Int16) -> list[float]:
    """Margin of the first code that differs, for every frame of a clip in which one does.

    frames: [F, hop], from the start of a stream.  codes, other: [F, K].
    """
    differ = np.flatnonzero((codes != other).any(axis=1))
    if not len(differ):
        return []
    latents = run_layers("encoder", encoder_layers(config), arrays, frames.reshape(-1, 1).astype(np.float64))
    margins = []
    for frame in differ:
        k = int(np.flatnonzero(codes[frame] != other[frame])[0])
        margins.append(margin(latents[frame].astype(np.float32), codes[frame], k, int(other[frame, k]), arrays))
    return margins
