"""One .safetensors file = weights + config + model_id, read and written with numpy alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from streamcodec import architecture as arch
from streamcodec.config import CodecConfig
from streamcodec.errors import CheckpointError, ConfigError
from streamcodec.files import atomic_output

BITSTREAM_VERSION = 1
DEFAULT_NAME = "default.safetensors"

LARGEST = 1e9
"""Neither a weight, nor 1 / alpha, nor a value inside the network is larger: float32 then has room for any product."""

_DTYPES = ("F16", "F32")

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run.

    Parameters
    ----------
    config : CodecConfig
        Its shape.
    arrays : mapping of str to float32 array
        Weights by the names of `streamcodec.architecture`.
    model_id : bytes
        8 bytes that two models share only if they decode alike.
    """

    config: CodecConfig
    arrays: Arrays
    model_id: bytes


def model_id_of(config: CodecConfig, arrays: Arrays) -> bytes:
    """First 8 bytes of the SHA-256 of codebooks, their output projections and the decoder, as float32.

    What the arrays do not tell of the network counts too: strides, and dilations and edge where they are not the usual.
    """
    shape = f"{config.sample_rate_hz} {config.strides} {config.causal}"
    for name, usual in (("dilations", (1, 3, 9)), ("edge", "conv")):
        if getattr(config, name) != usual:
            shape += f" {name}={getattr(config, name)}"
    digest = hashlib.sha256(shape.encode())
    for name in sorted(arrays):
        decodes = name.startswith("decoder.") or name.endswith((".codebook", ".out_weight", ".out_bias"))
        if decodes:
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return digest.digest()[:8]


def save_checkpoint(path: Path | str, config: CodecConfig, arrays: Arrays, *, half: bool = True) -> Checkpoint:
    """Write a model beside `path` and rename it there; return it as it will be loaded.

    Parameters
    ----------
    half : bool
        Store all but the codebooks as float16: half the bytes.  The model_id is computed from what is stored.

    Raises
    ------
    CheckpointError
        An array is missing, too many, of a wrong shape, not finite, or an alpha that is not positive.
    """
    with np.errstate(over="ignore"):
        stored = {
            name: np.ascontiguousarray(array, np.float16 if half and not name.endswith(".codebook") else np.float32)
            for name, array in arrays.items()
        }
    loaded = {name: array.astype(np.float32) for name, array in stored.items()}
    _check(config, loaded)
    model_id = model_id_of(config, loaded)
    metadata = {
        "format": "streamcodec",
        "config": config.to_json(),
        "bitstream_version": str(BITSTREAM_VERSION),
        "model_id": model_id.hex(),
    }
    with atomic_output(path) as file:
        file.write(save(stored, metadata))
    return Checkpoint(config, loaded, model_id)


def load_checkpoint(path: Path | str | None = None) -> Checkpoint:
    """Read a model; without a path, the one that ships with the package.

    Raises
    ------
    CheckpointError
        No such file, not a streamcodec file, or damaged.
    """
    place = Path(str(files("streamcodec") / "assets" / DEFAULT_NAME)) if path is None else Path(path)
    if not place.is_file():
        raise CheckpointError(f"no weights at {place}; give the path of a .safetensors file made by streamcodec")
    try:
        with safe_open(place, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "streamcodec":
                raise CheckpointError(f"{place} was not made by streamcodec: its metadata has no format=streamcodec")
            if metadata.get("bitstream_version") != str(BITSTREAM_VERSION):
                raise CheckpointError(
                    f"{place} has bitstream version {metadata.get('bitstream_version')}; "
                    f"this streamcodec has {BITSTREAM_VERSION}. Update streamcodec or the weights."
                )
            config = CodecConfig.from_json(metadata.get("config", ""))
            shapes = arch.array_shapes(config)
            if sorted(file.keys()) != sorted(shapes):
                odd = sorted(set(file.keys()) ^ set(shapes))[0]
                raise CheckpointError(f"{place}: array {odd} is missing or unknown")
            for name in shapes:
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _DTYPES:
                    raise CheckpointError(f"{place}: array {name} is {dtype}; it must be float16 or float32")
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in shapes}
    except (SafetensorError, ConfigError, OSError) as error:
        raise CheckpointError(f"{place} is not a usable weights file: {error}") from None
    _check(config, arrays)
    model_id = model_id_of(config, arrays)
    if metadata.get("model_id") != model_id.hex():
        raise CheckpointError(f"{place} is damaged: its weights do not match its model_id {metadata.get('model_id')}")
    return Checkpoint(config, arrays, model_id)


def _check(config: CodecConfig, arrays: Arrays) -> None:
    shapes = arch.array_shapes(config)
    for name in sorted(set(shapes) | set(arrays)):
        if name not in arrays or name not in shapes:
            raise CheckpointError(f"array {name} is {'missing' if name in shapes else 'unknown'}")
        if arrays[name].shape != shapes[name]:
            raise CheckpointError(f"array {name} is {arrays[name].shape}; this model needs {shapes[name]}")
        if not np.isfinite(arrays[name]).all():
            raise CheckpointError(f"array {name} holds a value that is not finite (in float16 at most 65504)")
        if name.endswith(".alpha") and not (arrays[name] > 0).all():
            raise CheckpointError(f"array {name} holds a value that is not positive (in float16 at least 6e-8)")
        if not extreme(name, arrays[name]) <= LARGEST:
            low = f"{1 / LARGEST:g}" if name.endswith(".alpha") else f"-{LARGEST:g}"
            raise CheckpointError(
                f"array {name} holds values from {arrays[name].min():g} to {arrays[name].max():g}; "
                f"only from {low} to {LARGEST:g} does sound stay finite"
            )


def extreme(name: str, array: NDArray[np.float32]) -> float:
    """Return the largest magnitude in an array; of Snake's alpha, 1 / alpha counts as well."""
    largest = max(float(array.max(initial=0)), -float(array.min(initial=0)))
    return max(largest, 1 / float(array.min())) if name.endswith(".alpha") else largest
