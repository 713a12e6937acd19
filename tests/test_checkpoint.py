"""Checkpoints: what is written is what is loaded, and nothing else loads."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_reference import random_weights
from safetensors.numpy import save
from small_models import SMALL, STRIDED, small_checkpoint

from streamcodec import Codec
from streamcodec.checkpoint import load_checkpoint, model_id_of, save_checkpoint
from streamcodec.engine.select import create_engine
from streamcodec.errors import CheckpointError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    small_checkpoint(path)
    return path


def rewritten(path: Path, arrays: dict[str, np.ndarray], **metadata: str) -> Path:
    """A file with good metadata but for what is given."""
    facts = {
        "format": "streamcodec",
        "config": SMALL.to_json(),
        "bitstream_version": "1",
        "model_id": model_id_of(SMALL, {k: v.astype(np.float32) for k, v in arrays.items()}).hex(),
    }
    path.write_bytes(save(arrays, facts | metadata))
    return path


@pytest.mark.parametrize("strided", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, half: bool, strided: bool) -> None:
    config = STRIDED if strided else SMALL
    weights = random_weights(config)
    saved = save_checkpoint(tmp_path / "a.safetensors", config, weights, half=half)
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.config == config
    assert loaded.model_id == saved.model_id
    assert len(loaded.model_id) == 8
    assert set(loaded.arrays) == set(weights)
    for name, array in loaded.arrays.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, saved.arrays[name])
        assert np.array_equal(
            array, weights[name].astype(np.float16 if half and not name.endswith(".codebook") else np.float32)
        )
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_model_id_changes_if_and_only_if_decoding_changes() -> None:
    weights = random_weights(SMALL)
    before = model_id_of(SMALL, weights)
    for name, array in weights.items():
        changed = weights | {name: array.copy()}
        changed[name].reshape(-1)[-1] += 0.5
        decodes = name.startswith("decoder.") or name.rsplit(".", 1)[1] in ("codebook", "out_weight", "out_bias")
        assert (model_id_of(SMALL, changed) != before) == decodes, name
    assert model_id_of(replace(SMALL, name="renamed"), weights) == before
    assert model_id_of(replace(SMALL, sample_rate_hz=48_000), weights) != before
    assert model_id_of(replace(SMALL, dilations=(1, 3, 8)), weights) != before
    assert model_id_of(replace(SMALL, edge="strided"), weights) != before


def test_model_id_of_the_usual_shape_stays_what_it_is() -> None:
    ones = {name: np.ones_like(array) for name, array in random_weights(SMALL).items()}
    assert model_id_of(SMALL, ones).hex() == "4cc3bf227e09148f"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_cut_or_damaged_file_is_one_clear_error(made: Path, data: st.DataObject) -> None:
    whole = made.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.one_of(st.integers(0, header), st.integers(0, len(whole) - 1)))]
    else:
        at = data.draw(st.one_of(st.integers(0, header), st.integers(0, len(whole) - 1)))
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    path = made.with_name("damaged.safetensors")
    path.write_bytes(damaged)
    problem = ""
    try:
        # what the encoder alone uses is not in the model_id, and a letter of the name decides nothing
        assert load_checkpoint(path).model_id == load_checkpoint(made).model_id
    except CheckpointError as error:
        problem = str(error)
    assert "\n" not in problem


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights at .*absent\.safetensors; give the path"):
        load_checkpoint(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="no weights at"):
        load_checkpoint(tmp_path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for content in (
        b"",
        b"RIFF",
        b"\xff" * 64,
        (2**60).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    path.write_bytes(save({"a": np.zeros(3, np.float32)}))
    with pytest.raises(CheckpointError, match="was not made by streamcodec"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"format": "other"}, "not made by streamcodec"),
        ({"bitstream_version": "2"}, "bitstream version 2; this streamcodec has 1. Update"),
        ({"config": "{"}, "not JSON"),
        ({"config": json.dumps({"name": "a"})}, "incomplete"),
        ({"config": replace(SMALL, n_codebooks=5).to_json()}, r"quantizer\.4.* is missing or unknown"),
        ({"config": replace(SMALL, latent_dim=9).to_json()}, r"is \(7, 8, 32\); this model needs \(7, 9, 32\)"),
        ({"model_id": "00" * 8}, "is damaged: its weights do not match"),
        ({"model_id": "zz"}, "is damaged"),
    ],
)
def test_metadata_that_does_not_hold_is_refused(tmp_path: Path, metadata: dict[str, str], match: str) -> None:
    path = rewritten(tmp_path / "x.safetensors", random_weights(SMALL), **metadata)
    with pytest.raises(CheckpointError, match=match):
        load_checkpoint(path)


def test_arrays_that_cannot_run_are_refused(tmp_path: Path) -> None:
    weights, path = random_weights(SMALL), tmp_path / "x.safetensors"
    for name, value, match in (
        ("decoder.0.bias", np.nan, "decoder.0.bias holds a value that is not finite"),
        ("encoder.0.weight", np.inf, "not finite"),
        ("encoder.1.0.alpha", 0, "encoder.1.0.alpha holds a value that is not positive"),
        ("decoder.1.alpha", -1, "not positive"),
    ):
        array = weights[name].copy()
        array.reshape(-1)[0] = value
        with pytest.raises(CheckpointError, match=match):
            save_checkpoint(path, SMALL, weights | {name: array})
        assert not path.exists()
        rewritten(path, weights | {name: array})
        with pytest.raises(CheckpointError, match=match):
            load_checkpoint(path)
        path.unlink()
    array = np.full_like(weights["decoder.0.bias"], 70_000)
    with pytest.raises(CheckpointError, match=r"in float16 at most 65504"):
        save_checkpoint(path, SMALL, weights | {"decoder.0.bias": array})
    with pytest.raises(CheckpointError, match=r"encoder.0.bias is missing"):
        save_checkpoint(path, SMALL, {k: v for k, v in weights.items() if k != "encoder.0.bias"})
    with pytest.raises(CheckpointError, match=r"extra is unknown"):
        save_checkpoint(path, SMALL, weights | {"extra": array})


def test_arrays_of_a_foreign_type_are_refused(tmp_path: Path) -> None:
    weights = random_weights(SMALL)
    path = tmp_path / "x.safetensors"
    for dtype in (np.int64, np.float64, np.bool_):
        rewritten(path, weights | {"decoder.0.bias": weights["decoder.0.bias"].astype(dtype)})
        with pytest.raises(CheckpointError, match=r"decoder.0.bias is .*; it must be float16 or float32"):
            load_checkpoint(path)
    whole = save({name: array.astype(np.float16) for name, array in weights.items()}, {"format": "streamcodec"})
    path.write_bytes(whole.replace(b'"F16"', b'"U16"').replace(b"{", b"{", 1))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    good = rewritten(path, {name: array.astype(np.float16) for name, array in weights.items()}).read_bytes()
    header = good[8 : 8 + int.from_bytes(good[:8], "little")].replace(b'"F16"', b'"BF16"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + good[8 + int.from_bytes(good[:8], "little") :])
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_loads_and_lists_the_public_names_where_torch_is_not_installed(made: Path) -> None:
    script = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "triton"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
import streamcodec
from streamcodec.errors import MissingExtraError
checkpoint = streamcodec.load_checkpoint(sys.argv[1])
for name in streamcodec.__all__:
    getattr(streamcodec, name)
try:
    streamcodec.Codec.load(sys.argv[1], backend="torch")
except MissingExtraError as error:
    assert "pip install 'streamcodec[torch]'" in str(error), error
else:
    raise SystemExit("backend torch without torch")
print(checkpoint.model_id.hex())
"""
    done = subprocess.run([sys.executable, "-c", script, str(made)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == load_checkpoint(made).model_id.hex()


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("decoder.0.bias", 1e20, r"decoder\.0\.bias holds values from .* to 1e\+20; only from -1e\+09 to 1e\+09"),
        ("quantizer.3.codebook", -3e38, r"quantizer\.3\.codebook holds values from -3e\+38"),
        ("decoder.1.alpha", 1e-45, r"decoder\.1\.alpha holds values from 1.*e-45 to .*; only from 1e-09 to 1e\+09"),
        ("encoder.1.2.alpha", 3e38, r"encoder\.1\.2\.alpha holds values"),
    ],
)
def test_value_that_no_sound_survives_is_refused_by_the_arrays_name(
    tmp_path: Path, name: str, value: float, match: str
) -> None:
    weights = random_weights(SMALL)
    weights[name].reshape(-1)[-1] = value
    path = rewritten(tmp_path / "x.safetensors", weights)
    with pytest.raises(CheckpointError, match=match):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match=match):
        save_checkpoint(tmp_path / "y.safetensors", SMALL, weights, half=False)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize(
    ("part", "factor"),
    [("encoder.", 1e6), ("decoder.", 1e6), ("weight", 1e8), ("encoder.3.3.weight", 2e9), ("decoder.0.weight", None)],
)
def test_weights_whose_products_overflow_are_refused_when_an_engine_gets_them(
    tmp_path: Path, backend: str, part: str, factor: float | None
) -> None:
    if backend == "torch":
        pytest.importorskip("torch", reason="the torch engine needs torch")
    weights = random_weights(SMALL)
    changed = [name for name in weights if part in name and not name.endswith("alpha")]
    assert changed
    for name in changed:
        limit = 9e8 / np.abs(weights[name]).max()
        weights[name] = (weights[name] * min(limit, factor or limit)).astype(np.float32)
    checkpoint = load_checkpoint(rewritten(tmp_path / "x.safetensors", weights))
    with pytest.raises(CheckpointError, match=r"make sound that is not finite: .* most extreme array is \w+\."):
        create_engine(checkpoint, backend)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("direction", ["encoder", "decoder"])
def test_taps_that_reach_far_back_are_tried_as_well(tmp_path: Path, backend: str, direction: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch", reason="the torch engine needs torch")
    weights = random_weights(SMALL)
    oldest = [name for name in weights if name.startswith(direction) and name.endswith(".1.weight")]
    for name in oldest:  # the oldest taps of the dilated convolutions: with silence before, they multiply zeros
        weights[name][0] = 9e8
    checkpoint = load_checkpoint(rewritten(tmp_path / "x.safetensors", weights))
    with pytest.raises(CheckpointError, match=rf"most extreme array is {direction}\.\d+\.1\.weight, up to 9e\+08"):
        create_engine(checkpoint, backend)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_vector_that_no_sound_chooses_is_tried_as_well(tmp_path: Path, backend: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch", reason="the torch engine needs torch")
    weights = random_weights(SMALL)
    weights["quantizer.2.codebook"][77] = -9e8  # its dot product with most queries is low
    weights["quantizer.2.out_weight"] *= 1e8
    checkpoint = load_checkpoint(rewritten(tmp_path / "x.safetensors", weights))
    with pytest.raises(CheckpointError, match=r"most extreme array is quantizer\.2\.codebook, up to 9e\+08"):
        create_engine(checkpoint, backend)


@pytest.mark.parametrize("alpha", [6e-8, 1e-4, 1e3, 65_504])
def test_extreme_weights_whose_sound_is_finite_are_taken(tmp_path: Path, alpha: float) -> None:
    weights = {n: np.full_like(a, alpha) if n.endswith("alpha") else a for n, a in random_weights(SMALL).items()}
    codec = Codec.load(rewritten(tmp_path / "x.safetensors", weights))
    codes = codec.tokenize(np.random.default_rng(0).uniform(-1, 1, 9000).astype(np.float32))
    assert np.isfinite(codec.detokenize(codes)).all()
