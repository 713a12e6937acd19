"""`encode --beam` and `tokenize --beam`: other codes, the same format, and folders that never mix two beams."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from small_models import small_checkpoint
from token_folder import contents, copies, speech

from streamcodec import Codec
from streamcodec.bitstream import ScxReader
from streamcodec.cli import main
from streamcodec.errors import ConfigError
from streamcodec.tokens import TokenDataset
from streamcodec.tokens.on_ray import ShardWorker
from streamcodec.tokens.run import TokenOptions
from streamcodec.transcode import encode_file


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    small_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copies(tmp_path_factory.mktemp("sounds") / "in", 3)


def codes_of(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return np.concatenate(list(ScxReader(file)), axis=2)


def test_encode_writes_the_codes_that_the_beam_finds_in_a_file_of_the_same_size(model: Path, tmp_path: Path) -> None:
    codec, heard = Codec.load(model), speech(24_000, 0, 1)
    soundfile.write(tmp_path / "s.wav", heard, 24_000, subtype="FLOAT")
    common = "encode", tmp_path / "s.wav"
    for name, words in {"plain": (), "one": ("--beam", 1), "wide": ("--beam", 4)}.items():
        result = run(*common, tmp_path / f"{name}.scx", "--model", model, "--bitrate", 1.8, *words)
        assert result.exit_code == 0, result.output
    plain, one, wide = ((tmp_path / f"{name}.scx") for name in ("plain", "one", "wide"))
    assert plain.read_bytes() == one.read_bytes()
    assert plain.stat().st_size == wide.stat().st_size
    for path, beam in ((plain, 1), (wide, 4)):
        np.testing.assert_array_equal(codes_of(path)[0], codec.tokenize(heard, 1800, beam=beam))
    assert run("decode", wide, tmp_path / "heard.wav", "--model", model).exit_code == 0


@pytest.mark.parametrize("beam", [0, 17, "wide", 2.5])
def test_beams_that_there_are_not_are_wrong_usage_and_nothing_is_written(
    model: Path, sounds: Path, tmp_path: Path, beam: object
) -> None:
    assert run("encode", sounds / "000.wav", tmp_path / "a.scx", "--model", model, "--beam", beam).exit_code == 2
    assert run("tokenize", sounds, tmp_path / "tokens", "--model", model, "--beam", beam).exit_code == 2
    assert not list(tmp_path.iterdir())


def test_beams_that_there_are_not_are_refused_by_the_functions_too(model: Path, sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="beam is 17"):
        encode_file(Codec.load(model), sounds / "000.wav", tmp_path / "a.scx", 1800, beam=17)
    with pytest.raises(ConfigError, match="beam is 0"):
        TokenOptions(beam=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_tokens_are_those_of_the_beam_and_the_job_says_so(
    model: Path, sounds: Path, tmp_path: Path, backend: str
) -> None:
    if backend == "torch":
        pytest.importorskip("torch", reason="torch is not installed")
    common = "--model", model, "--bitrate", 1.8, "--jobs", 1, "--format", "npz", "--backend", backend
    result = run("tokenize", sounds, tmp_path / "wide", *common, "--beam", 4)
    assert result.exit_code == 0, result.output
    dataset = TokenDataset.open(tmp_path / "wide")
    assert dataset.job.beam == 4
    for name in ("job.json", "index.json"):
        assert json.loads((tmp_path / "wide" / name).read_text())["beam"] == 4
    file = next(iter(dataset))
    samples, _ = soundfile.read(sounds / "000.wav", dtype="float32")
    expected = Codec.load(model, backend=backend).tokenize(samples, 1800, beam=4).T
    assert (file.codes != expected).any(axis=1).mean() < 0.05  # torch takes many frames at once: near-ties
    assert (file.codes != Codec.load(model).tokenize(samples, 1800).T).any(axis=1).mean() > 0.1


def test_folders_without_a_beam_are_what_they_were(model: Path, sounds: Path, tmp_path: Path) -> None:
    common = "--model", model, "--bitrate", 1.8, "--jobs", 1, "--format", "npz"
    assert run("tokenize", sounds, tmp_path / "plain", *common).exit_code == 0
    assert run("tokenize", sounds, tmp_path / "one", *common, "--beam", 1).exit_code == 0
    assert contents(tmp_path / "plain") == contents(tmp_path / "one")
    stored = json.loads((tmp_path / "plain/job.json").read_text())
    assert "beam" not in stored
    job = TokenDataset.open(tmp_path / "plain").job
    assert job.beam == 1
    fields = {name: value for name, value in asdict(job).items() if name != "beam"}
    assert stored == fields
    assert job.job_id == hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize(("first", "second"), [(1, 4), (4, 1), (4, 8)])
def test_a_folder_begun_with_another_beam_is_refused_and_not_touched(
    model: Path, sounds: Path, tmp_path: Path, first: int, second: int
) -> None:
    common = "tokenize", sounds, tmp_path / "out", "--model", model, "--bitrate", 1.8, "--jobs", 1, "--format", "npz"
    assert run(*common, "--beam", first).exit_code == 0
    before = contents(tmp_path / "out")
    result = run(*common, "--beam", second)
    assert result.exit_code == 1
    assert f"--beam {first}, not {second}" in result.output
    assert contents(tmp_path / "out") == before
    assert run(*common, "--beam", first).exit_code == 0
    (tmp_path / "out/shard-000000.npz").unlink()
    assert run(*common, "--beam", first).exit_code == 0
    assert contents(tmp_path / "out") == before


def test_a_worker_on_ray_searches_with_the_beam_of_the_job(model: Path, sounds: Path, tmp_path: Path) -> None:
    common = "--model", model, "--bitrate", 1.8, "--jobs", 1, "--format", "npz", "--beam", 4
    assert run("tokenize", sounds, tmp_path / "local", *common).exit_code == 0
    shutil.copytree(tmp_path / "local", tmp_path / "ray")
    shard = tmp_path / "ray/shard-000000.npz"
    shard.unlink()
    job = TokenDataset.open(tmp_path / "local").job
    sources = [{"path": path.name, "n_bytes": path.stat().st_size} for path in sorted(sounds.iterdir())]
    worker = ShardWorker(job, str(model), str(sounds), str(tmp_path / "ray"), 1)
    assert worker({"shard": 0, "sources": json.dumps(sources)})["problem"] == ""
    assert shard.read_bytes() == (tmp_path / "local/shard-000000.npz").read_bytes()
