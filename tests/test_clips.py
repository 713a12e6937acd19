"""Clips in blocks of frames, as a GPU takes them, are the streams that they would be frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from network_reference import random_weights
from small_models import SMALL

torch = pytest.importorskip("torch", reason="the torch engine needs torch")

from streamcodec.cli import main  # noqa: E402
from streamcodec.cli.loopback import sample_path  # noqa: E402
from streamcodec.engine.clips import BLOCK_FRAMES, decode_frames, encode_frames  # noqa: E402
from streamcodec.engine.cpu import CpuEngine  # noqa: E402
from streamcodec.engine.torch import BlockTorchEngine  # noqa: E402

FRAMES = BLOCK_FRAMES + 15


no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])])
def test_blocks_equal_single_frames(device: str) -> None:
    weights = random_weights(SMALL)
    blocks, single = BlockTorchEngine(SMALL, weights, device), CpuEngine(SMALL, weights)
    frames = 0.3 * np.random.default_rng(0).standard_normal((FRAMES, 2, SMALL.hop_samples)).astype(np.float32)
    codes, alone = (np.full((FRAMES, 2, 3), -1, np.int16) for _ in range(2))
    encode_frames(blocks, frames, blocks.encoder_state(2), codes)
    encode_frames(single, frames, single.encoder_state(2), alone)
    assert (codes != alone).any(axis=2).mean() <= 0.02
    made, expected = np.full_like(frames, np.nan), np.full_like(frames, np.nan)
    state, alone_state = blocks.decoder_state(2), single.decoder_state(2)
    for count in (3, 0, 1):  # then lost frames, then another bitrate
        decode_frames(blocks, alone[:, :, :count], state, made)
        decode_frames(single, np.ascontiguousarray(alone[:, :, :count]), alone_state, expected)
        np.testing.assert_allclose(made, expected, atol=5e-5)
    assert expected.std() > 0.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_file_for_a_gpu_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    target = tmp_path / "speech.scx"
    result = CliRunner().invoke(main, ["encode", str(sample_path()), str(target), "--device", "cuda"])
    assert result.exit_code == 1
    assert result.stderr == "BackendError: device cuda: torch finds no GPU; choose device='cpu'\n"
    assert not target.exists()
