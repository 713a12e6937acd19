"""What is timed: engines and runtimes on the same weights, each made to code frame after frame of one stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamcodec.bench.reference import Float32, Int16, Weights
from streamcodec.config import CodecConfig
from streamcodec.engine import Engine
from streamcodec.engine.cpu import CpuEngine
from streamcodec.engine.onnx_export import decoder_graph, encoder_graph
from streamcodec.errors import MissingExtraError


@dataclass(frozen=True)
class Contender:
    """One stream on one engine; frames float32 [hop], codes int16 [K].

    Parameters
    ----------
    name : str
        As the table shows it.
    encode, decode : callable
        Code one frame, in turn after turn; what they return is overwritten by the next turn.
    beam : int
        As in `Engine.encode_step`.
    """

    name: str
    encode: Callable[[Float32], Int16]
    decode: Callable[[Int16], Float32]
    beam: int = 1


def our_contender(config: CodecConfig, weights: Weights, beam: int = 1) -> Contender:
    """The CPU engine."""
    name = "streamcodec cpu" if beam == 1 else f"streamcodec cpu, beam {beam}"
    return _engine_contender(name, CpuEngine(config, weights), beam)


def torch_contender(config: CodecConfig, weights: Weights) -> Contender:
    """The torch engine, eager, on one thread."""
    _torch().set_num_threads(1)
    from streamcodec.engine.torch import TorchEngine

    return _engine_contender("torch eager", TorchEngine(config, weights))


def compiled_contender(config: CodecConfig, weights: Weights) -> Contender:
    """The torch modules' step through torch.compile, on one thread; compiles at its first turn."""
    torch = _torch()
    torch.set_num_threads(1)
    from streamcodec.nn.model import CodecModel

    model = CodecModel(config)
    model.load_arrays(weights)
    model.eval().requires_grad_(False)
    encoder_state = torch.zeros(1, model.encoder.state_values)
    decoder_state = torch.zeros(1, model.decoder.state_values)

    @torch.compile  # type: ignore[untyped-decorator]
    def encode_step(frame: Any, state: Any) -> Any:
        return model.quantizer.encode(model.encoder.step(frame, state), config.n_codebooks)

    @torch.compile  # type: ignore[untyped-decorator]
    def decode_step(codes: Any, state: Any) -> Any:
        return model.decoder.step(model.quantizer.decode(codes, config.latent_dim), state)

    def encode(frame: Float32) -> Int16:
        with torch.no_grad():
            codes: Int16 = encode_step(torch.from_numpy(frame).view(1, -1, 1), encoder_state)[0, 0].numpy()
        return codes

    def decode(codes: Int16) -> Float32:
        with torch.no_grad():
            index = torch.from_numpy(codes.astype(np.int64)).view(1, 1, -1)
            frame: Float32 = decode_step(index, decoder_state)[0, :, 0].numpy()
        return frame

    return Contender("torch.compile", encode, decode)


def onnx_contender(config: CodecConfig, weights: Weights) -> Contender:
    """ONNX Runtime on the exported graphs, one thread, state swapped between two sets of bound buffers."""
    encoder = _BoundSession(encoder_graph(config, weights))
    decoder = _BoundSession(decoder_graph(config, weights))

    def encode(frame: Float32) -> Int16:
        encoder.arrays["frame"][0] = frame
        encoder.run()
        codes: Int16 = encoder.arrays["codes"][0]
        return codes

    def decode(codes: Int16) -> Float32:
        decoder.arrays["codes"][0] = codes
        decoder.run()
        frame: Float32 = decoder.arrays["frame"][0]
        return frame

    return Contender("ONNX Runtime", encode, decode)


class _BoundSession:
    """A session whose inputs and outputs stay where they are: nothing is copied or allocated in a run."""

    def __init__(self, model: Any) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("onnxruntime", "export") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.arrays = {}
        values: dict[str, Any] = {}
        for node in (*inputs, *outputs):
            dtype = np.int64 if "int64" in node.type else np.float32
            self.arrays[node.name] = np.zeros([1, *node.shape[1:]], dtype)
            values[node.name] = onnxruntime.OrtValue.ortvalue_from_numpy(self.arrays[node.name])
            self.arrays[node.name] = values[node.name].numpy()
        self.bindings = []
        for turn in range(2):
            binding = self.session.io_binding()
            for node in inputs:
                is_state = node.name.startswith("state.")
                source = f"next_{node.name}" if is_state and turn else node.name
                binding.bind_ortvalue_input(node.name, values[source])
            for node in outputs:
                target = node.name.removeprefix("next_") if turn else node.name
                binding.bind_ortvalue_output(node.name, values[target])
            self.bindings.append(binding)
        self.turn = 0

    def run(self) -> None:
        """One frame."""
        self.session.run_with_iobinding(self.bindings[self.turn])
        self.turn ^= 1


def _engine_contender(name: str, engine: Engine, beam: int = 1) -> Contender:
    encoder_state, decoder_state = engine.encoder_state(), engine.decoder_state()
    coded: Int16 = np.zeros((1, engine.config.n_codebooks), np.int16)
    heard: Float32 = np.zeros((1, engine.config.hop_samples), np.float32)
    code_row: Int16 = coded[0]
    frame_row: Float32 = heard[0]

    def encode(frame: Float32) -> Int16:
        engine.encode_step(frame.reshape(1, -1), encoder_state, coded, beam)
        return code_row

    def decode(codes: Int16) -> Float32:
        engine.decode_step(codes.reshape(1, -1), decoder_state, heard)
        return frame_row

    return Contender(name, encode, decode, beam)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "torch") from None
    return torch
