"""Weights are tried once before they are used: finite ones can still make sound that is not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streamcodec.checkpoint import LARGEST, extreme
from streamcodec.engine import Engine, Float32
from streamcodec.errors import CheckpointError


def check_sound(engine: Engine, arrays: Mapping[str, Float32]) -> None:
    """Run a few frames of noise, of silence and of the codebooks' largest vectors, on a past of noise.

    With that past, every tap of every kernel takes part at once.

    Raises
    ------
    CheckpointError
        A sample or a value of the state is not finite or beyond LARGEST; the most extreme array is named.
    """
    config = engine.config
    frames = np.zeros((1, config.hop_samples), np.float32)
    codes = np.zeros((1, config.n_codebooks), np.int16)
    encoder, decoder = engine.encoder_state(), engine.decoder_state()
    random = np.random.default_rng(0)
    for state in (encoder, decoder):
        state[:] = random.uniform(-1, 1, state.shape)
    noise = random.uniform(-1, 1, frames.shape).astype(np.float32)
    for given in (noise, frames):
        engine.encode_step(given, encoder, codes)
    books = [arrays[f"quantizer.{k}.codebook"] for k in range(config.n_codebooks)]
    loudest = np.array([[np.abs(book).max(1).argmax() for book in books]], np.int16)
    fits = codes.min() >= 0 and codes.max() < config.codebook_size
    for received in (loudest, codes if fits else loudest, codes[:, :0]):
        engine.decode_step(received, decoder, frames)
        fits &= bool(np.isfinite(frames).all())
    peak = np.abs(np.concatenate([encoder, decoder], axis=1)).max(initial=0)
    if not (fits and peak <= LARGEST):  # also where the peak is no number
        name = max(arrays, key=lambda name: extreme(name, arrays[name]))
        raise CheckpointError(
            f"these weights make sound that is not finite: values in the network reach {peak:g}, at most {LARGEST:g} "
            f"may be; the most extreme array is {name}, up to {np.abs(arrays[name]).max():g}"
        )
