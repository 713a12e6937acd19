"""Writes the network as two ONNX graphs, one frame a run: for voice apps outside Python.

`encoder`: frame float32 [B, hop], states in -> codes int64 [B, K], states out.
`decoder`: codes int64 [B, K], -1 where a codebook was not sent or the frame was lost, states in -> frame, states out.
State i enters as `state.i` and leaves as `next_state.i`, float32 [B, channels, rows]: zeros at the start, then what
the run before returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcodec.architecture import (
    Conv,
    ConvTranspose,
    Layer,
    Residual,
    Snake,
    decoder_layers,
    encoder_layers,
)
from streamcodec.config import CodecConfig
from streamcodec.errors import BackendError, MissingExtraError
from streamcodec.files import write_bytes

OPSET = 17
IR_VERSION = 8

Float32 = NDArray[np.float32]


def export_onnx(config: CodecConfig, weights: Mapping[str, Float32], folder: Path) -> tuple[Path, Path]:
    """Write `<name>.encoder.onnx` and `<name>.decoder.onnx` to a folder; returns their paths.

    Raises
    ------
    BackendError
        The model is not causal.
    MissingExtraError
        onnx is not installed.
    """
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for direction, model in (("encoder", encoder_graph(config, weights)), ("decoder", decoder_graph(config, weights))):
        paths.append(folder / f"{config.name}.{direction}.onnx")
        write_bytes(paths[-1], model.SerializeToString())
    return paths[0], paths[1]


def encoder_graph(config: CodecConfig, weights: Mapping[str, Float32]) -> Any:
    """ONNX model of one encoder step."""
    graph = _Graph(config, weights)
    graph.input("frame", "float", ["B", config.hop_samples])
    x = graph.node("Unsqueeze", "frame", graph.whole([1]))
    latent = graph.layers("encoder", encoder_layers(config), x)
    residual = graph.node("Squeeze", latent, graph.whole([2]))
    codes = []
    for k in range(config.n_codebooks):
        name = f"quantizer.{k}"
        query = graph.linear(residual, f"{name}.in_weight", f"{name}.in_bias")
        scores = graph.node("MatMul", query, graph.array(np.ascontiguousarray(weights[f"{name}.codebook"].T)))
        code = graph.node("ArgMax", scores, axis=1, keepdims=0)
        codes.append(graph.node("Unsqueeze", code, graph.whole([1])))
        if k + 1 < config.n_codebooks:
            chosen = graph.node("Gather", graph.given(f"{name}.codebook"), code, axis=0)
            found = graph.linear(chosen, f"{name}.out_weight", f"{name}.out_bias")
            residual = graph.node("Sub", residual, found)
    graph.node("Concat", *codes, axis=1, output="codes")
    graph.output("codes", "int64", ["B", config.n_codebooks])
    return graph.model(f"{config.name} encoder")


def decoder_graph(config: CodecConfig, weights: Mapping[str, Float32]) -> Any:
    """ONNX model of one decoder step."""
    graph = _Graph(config, weights)
    graph.input("codes", "int64", ["B", config.n_codebooks])
    present = graph.node("GreaterOrEqual", "codes", graph.whole([0]))
    shares = graph.node("Cast", present, to=graph.onnx.TensorProto.FLOAT)
    valid = graph.node("Max", "codes", graph.whole([0]))
    total = None
    for k in range(config.n_codebooks):
        name = f"quantizer.{k}"
        code = graph.node("Gather", valid, graph.scalar(k), axis=1)
        share = graph.node("Slice", shares, graph.whole([k]), graph.whole([k + 1]), graph.whole([1]))
        chosen = graph.node("Gather", graph.given(f"{name}.codebook"), code, axis=0)
        found = graph.node("Mul", graph.linear(chosen, f"{name}.out_weight", f"{name}.out_bias"), share)
        total = found if total is None else graph.node("Add", total, found)
    assert total is not None
    x = graph.node("Unsqueeze", total, graph.whole([2]))
    x = graph.layers("decoder", decoder_layers(config), x)
    graph.node("Squeeze", x, graph.whole([1]), output="frame")
    graph.output("frame", "float", ["B", config.hop_samples])
    return graph.model(f"{config.name} decoder")


class _Graph:
    """Collects nodes, constants and states; activations are [B, channels, time]."""

    def __init__(self, config: CodecConfig, weights: Mapping[str, Float32]) -> None:
        if not config.causal:
            raise BackendError(f"{config.name} is not causal: it looks ahead and cannot run frame by frame")
        try:
            import onnx
        except ImportError:
            raise MissingExtraError("onnx", "export") from None
        self.onnx: Any = onnx
        self.config = config
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.states = 0

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        output = output or f"{kind.lower()}.{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.constants:
            self.constants[name] = self.onnx.numpy_helper.from_array(value, name)
        return name

    def array(self, value: Float32) -> str:
        """A new float constant."""
        return self._constant(f"constant.{len(self.constants)}", value)

    def given(self, name: str) -> str:
        """An array of the checkpoint, under its own name."""
        return self._constant(name, np.ascontiguousarray(self.weights[name], np.float32))

    def whole(self, values: list[int]) -> str:
        """A constant list of whole numbers."""
        return self._constant("int." + ".".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        """A constant whole number without dimensions."""
        return self._constant(f"int.{value}.scalar", np.array(value, np.int64))

    def linear(self, x: str, weight: str, bias: str) -> str:
        """X @ weight + bias."""
        return self.node("Gemm", x, self.given(weight), self.given(bias))

    def _value(self, name: str, kind: str, shape: list[Any]) -> Any:
        types = {"float": self.onnx.TensorProto.FLOAT, "int64": self.onnx.TensorProto.INT64}
        return self.onnx.helper.make_tensor_value_info(name, types[kind], shape)

    def input(self, name: str, kind: str, shape: list[Any]) -> None:
        """Declare an input."""
        self.inputs.append(self._value(name, kind, shape))

    def output(self, name: str, kind: str, shape: list[Any]) -> None:
        """Declare an output; those that are not states come first."""
        self.outputs.insert(0, self._value(name, kind, shape))

    def layers(self, prefix: str, layers: tuple[Layer, ...], x: str) -> str:
        """Append a chain of layers; returns the name of what it makes."""
        for i, layer in enumerate(layers):
            name = f"{prefix}.{i}"
            match layer:
                case Residual(body=body):
                    x = self.node("Add", x, self.layers(name, body, x))
                case Snake():
                    alpha = np.ascontiguousarray(self.weights[f"{name}.alpha"], np.float32)[:, None]
                    sine = self.node("Sin", self.node("Mul", x, self.array(alpha)))
                    square = self.node("Mul", sine, sine)
                    x = self.node("Add", x, self.node("Mul", square, self.array((1 / alpha).astype(np.float32))))
                case Conv():
                    x = self._conv(name, layer, x)
                case ConvTranspose():
                    x = self._conv_transpose(name, layer, x)
                case _:
                    x = self.node("Tanh", x)
        return x

    def _with_history(self, x: str, channels: int, rows: int) -> str:
        """The input after `rows` rows of its past, which are kept."""
        if rows == 0:
            return x
        state, following = f"state.{self.states}", f"next_state.{self.states}"
        self.states += 1
        self.input(state, "float", ["B", channels, rows])
        seen = self.node("Concat", state, x, axis=2)
        self._slice(seen, -rows, 2**62, following)
        self.outputs.append(self._value(following, "float", ["B", channels, rows]))
        return seen

    def _slice(self, x: str, start: int, end: int, output: str = "") -> str:
        return self.node("Slice", x, self.whole([start]), self.whole([end]), self.whole([2]), output=output)

    def _conv(self, name: str, layer: Conv, x: str) -> str:
        weight = self.weights[f"{name}.weight"]
        order = weight.T[:, None, :] if layer.depthwise else weight.transpose(2, 1, 0)
        seen = self._with_history(x, layer.in_channels, layer.history_rows)
        if layer.stride > layer.span:
            seen = self._slice(seen, layer.stride - layer.span, 2**62)
        return self.node(
            "Conv",
            seen,
            self.array(np.ascontiguousarray(order, np.float32)),
            self.given(f"{name}.bias"),
            strides=[layer.stride],
            dilations=[layer.dilation],
            group=layer.in_channels if layer.depthwise else 1,
        )

    def _conv_transpose(self, name: str, layer: ConvTranspose, x: str) -> str:
        """As a convolution to stride * out channels, whose rows are then dealt out over time."""
        stride, outputs = layer.stride, layer.out_channels
        taps = -(-layer.kernel // stride)
        padded = np.zeros((layer.in_channels, taps * stride, outputs), np.float32)
        padded[:, : layer.kernel] = self.weights[f"{name}.weight"]
        by_tap = padded.reshape(layer.in_channels, taps, stride, outputs)[:, ::-1]
        weight = by_tap.transpose(3, 2, 0, 1).reshape(outputs * stride, layer.in_channels, taps)
        bias = np.repeat(self.weights[f"{name}.bias"], stride)
        seen = self._with_history(x, layer.in_channels, taps - 1)
        rows = self.node("Conv", seen, self.array(np.ascontiguousarray(weight)), self.array(bias))
        apart = self.node("Reshape", rows, self.whole([0, outputs, stride, -1]))
        dealt = self.node("Transpose", apart, perm=[0, 1, 3, 2])
        return self.node("Reshape", dealt, self.whole([0, outputs, -1]))

    def model(self, name: str) -> Any:
        """The finished, checked model; the config is its metadata."""
        graph = self.onnx.helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.constants.values()))
        opset = self.onnx.helper.make_opsetid("", OPSET)
        model = self.onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        model.producer_name = "streamcodec"
        self.onnx.helper.set_model_props(model, {"config": self.config.to_json()})
        self.onnx.checker.check_model(model)
        return model
