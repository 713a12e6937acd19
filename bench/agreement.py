"""The CPU engine against the torch reference on real audio: `python bench/agreement.py SECONDS FILE...`.

The reference codes each clip as a whole, the engine frame by frame.  A code that differs is a near-tie if the two
candidates' scores, computed in float64 from the reference's latent, are closer than rounding can tell; what follows
it in the same frame codes another residual and is not counted again.  Decoded audio is compared on the same codes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from streamcodec import Codec
from streamcodec.bench.agreement import margin
from streamcodec.checkpoint import load_checkpoint
from streamcodec.evaluation.sound_files import read_sound
from streamcodec.metrics.waveforms import resampled
from streamcodec.nn.model import CodecModel

CLIP_S = 4.0


def main(seconds: float, paths: list[Path]) -> None:
    torch.set_num_threads(1)
    checkpoint = load_checkpoint()
    codec = Codec(checkpoint, Codec.load(backend="cpu").engine)
    model = CodecModel(checkpoint.config)
    model.load_arrays(checkpoint.arrays)
    model.eval()
    hop, count = codec.frame_samples, checkpoint.config.n_codebooks
    done = frames = 0.0
    margins: list[float] = []
    worst = 0.0
    for path in paths:
        mono = resampled(*read_sound(path), codec.sample_rate_hz)
        length = int(CLIP_S * codec.sample_rate_hz) // hop * hop
        for start in range(0, len(mono) - hop, length):
            clip = mono[start : start + length]
            clip = np.clip(clip[: len(clip) // hop * hop], -1, 1)
            ours = codec.tokenize(clip).T
            with torch.no_grad():
                latent = model.encode_latent(torch.from_numpy(clip)[None])
                theirs = model.quantizer.encode(latent, count)[0].numpy()
                sent = torch.from_numpy(ours.astype(np.int64))[None]
                heard = model.decode_latent(model.quantizer.decode(sent, checkpoint.config.latent_dim))
            for frame in np.flatnonzero((ours != theirs).any(axis=1)):
                k = int(np.flatnonzero(ours[frame] != theirs[frame])[0])
                rival = int(ours[frame, k])
                margins.append(margin(latent[0, frame].numpy(), theirs[frame], k, rival, checkpoint.arrays))
            worst = max(worst, float(np.abs(codec.detokenize(ours.T.copy()) - heard[0].numpy()).max()))
            frames += len(ours)
            done += len(clip) / codec.sample_rate_hz
            if done >= seconds:
                break
        print(f"{path.name}: {done:.0f} s so far, {len(margins)} frames with another code", flush=True)
        if done >= seconds:
            break
    print(f"{done:.0f} s of audio, {frames:.0f} frames of {count} codes, model {checkpoint.model_id.hex()}")
    print(f"frames with another code: {len(margins)}, largest margin of the two codes: {max(margins, default=0):.1e}")
    print(f"decoded audio differs by at most {worst:.1e}")


if __name__ == "__main__":
    main(float(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
