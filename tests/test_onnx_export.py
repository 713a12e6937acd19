"""The exported graphs, run by ONNX Runtime, are the same codec as the CPU engine."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from network_reference import random_weights
from small_models import SMALL, STRIDED, small_checkpoint

from streamcodec.cli import main
from streamcodec.config import PRESETS, CodecConfig
from streamcodec.engine.cpu import CpuEngine
from streamcodec.errors import BackendError

pytest.importorskip("onnx", reason="onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

CONFIGS = {
    "tiny": PRESETS["tiny-24k"],
    "dense": replace(SMALL, depthwise=False, strides=(3, 2)),
    "voice": PRESETS["voice-24k"],
    "strided": replace(STRIDED, depthwise=False, latent_kernel=2),
    "odd kernels": replace(SMALL, residual_kernel=4, edge_kernel=1, latent_kernel=2, strides=(1, 5)),
}


class Session:
    """Runs a graph and hands the states from run to run, as an application would."""

    def __init__(self, model: bytes | str) -> None:
        self.session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        states = [one for one in self.session.get_inputs() if one.name.startswith("state.")]
        self.states = {one.name: np.zeros([1, *one.shape[1:]], np.float32) for one in states}
        self.outputs = [one.name for one in self.session.get_outputs()]

    def run(self, name: str, value: np.ndarray) -> np.ndarray:
        results = dict(zip(self.outputs, self.session.run(self.outputs, {name: value, **self.states}), strict=True))
        self.states = {state: results[f"next_{state}"] for state in self.states}
        return results[self.outputs[0]]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_graphs_equal_the_engine_frame_by_frame(config: CodecConfig) -> None:
    from streamcodec.engine.onnx_export import decoder_graph, encoder_graph

    weights = random_weights(config)
    engine = CpuEngine(config, weights)
    state, decoder_state = engine.encoder_state(), engine.decoder_state()
    encoder = Session(encoder_graph(config, weights).SerializeToString())
    decoder = Session(decoder_graph(config, weights).SerializeToString())
    rng = np.random.default_rng(0)
    books = config.n_codebooks
    for i in range(12):
        frame = (0.3 * rng.standard_normal((1, config.hop_samples))).astype(np.float32)
        codes = np.zeros((1, books), np.int16)
        engine.encode_step(frame, state, codes)
        np.testing.assert_array_equal(encoder.run("frame", frame), codes)
        sent = 0 if i in (4, 5) else 1 + i % books
        heard = np.zeros_like(frame)
        engine.decode_step(codes[:, :sent], decoder_state, heard)
        padded = np.full((1, books), -1, np.int64)
        padded[:, :sent] = codes[:, :sent]
        np.testing.assert_allclose(decoder.run("codes", padded), heard, rtol=1e-5, atol=1e-4)


def test_streams_run_together() -> None:
    from streamcodec.engine.onnx_export import encoder_graph

    model = encoder_graph(SMALL, random_weights(SMALL)).SerializeToString()
    frames = np.random.default_rng(0).standard_normal((3, SMALL.hop_samples)).astype(np.float32)
    together = Session(model)
    together.states = {name: np.repeat(state, 3, axis=0) for name, state in together.states.items()}
    codes = together.run("frame", frames)
    for i in range(3):
        np.testing.assert_array_equal(Session(model).run("frame", frames[i : i + 1])[0], codes[i])


def test_the_command_writes_both_graphs_with_the_config_in_them(tmp_path) -> None:
    small_checkpoint(tmp_path / "small.safetensors")
    arguments = [
        "export",
        "onnx",
        "--model",
        str(tmp_path / "small.safetensors"),
        "-o",
        str(tmp_path / "out"),
        "--json",
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    paths = json.loads(result.output)
    for path in paths.values():
        metadata = Session(path).session.get_modelmeta().custom_metadata_map
        assert CodecConfig.from_json(metadata["config"]) == SMALL


def test_a_model_that_looks_ahead_is_not_exported() -> None:
    from streamcodec.engine.onnx_export import encoder_graph

    with pytest.raises(BackendError, match="not causal"):
        encoder_graph(PRESETS["dac-24k"], {})
