import json
import socket
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from small_models import small_checkpoint
from token_folder import BAD, contents, copies, mixed_folder, speech

import streamcodec
from streamcodec.checkpoint import load_checkpoint
from streamcodec.cli import main
from streamcodec.tokens import TokenDataset
from streamcodec.tokens.on_ray import ShardWorker
from streamcodec.tokens.shards import ShardSummary
from streamcodec.tokens.sources import Source, SourceSound, find_sources, plan_shards

RAY_LIMIT_S = 240


def tokenize(*words: object) -> int:
    return CliRunner().invoke(main, ["tokenize", *(str(word) for word in words)]).exit_code


def disagreements(latent: np.ndarray, found: np.ndarray, expected: np.ndarray) -> int:
    """Frames whose codes differ; each must begin with a choice between two codes that are all but equally good.

    latent: [F, latent].  found, expected: [F, K].
    """
    arrays = load_checkpoint().arrays
    frames = np.flatnonzero((found != expected).any(1))
    for f in frames:
        first = int(np.flatnonzero(found[f] != expected[f])[0])
        residual = latent[f].astype(np.float64)
        for k in range(first + 1):
            part = {name: arrays[f"quantizer.{k}.{name}"] for name in ("in_weight", "in_bias", "codebook")}
            query = residual @ part["in_weight"] + part["in_bias"]
            scores = part["codebook"] @ query
            code = part["codebook"][expected[f, k]]
            residual = residual - (code @ arrays[f"quantizer.{k}.out_weight"] + arrays[f"quantizer.{k}.out_bias"])
        assert abs(scores[found[f, first]] - scores[expected[f, first]]) < 1e-3 * np.abs(scores).max()
    return len(frames)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_folder(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def local(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local")
    assert tokenize(mixed, out, "--jobs", 1, "--shard-files", 5) == 3
    return out


def test_chunks_of_many_streams_in_torch_equal_streaming_frame_by_frame():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from streamcodec.engine.torch import TorchEngine
    from streamcodec.engine.torch_chunks import ChunkEncoder

    checkpoint = load_checkpoint()
    engine = TorchEngine(checkpoint.config, checkpoint.arrays)
    hop, books = checkpoint.config.hop_samples, checkpoint.config.n_codebooks
    samples = np.stack([speech(24_000, start, 1)[: 60 * hop] for start in (0, 2, 4)])
    expected = np.empty((3, 60, books), np.int16)
    state = engine.encoder_state(3)
    for f in range(60):
        engine.encode_step(np.ascontiguousarray(samples[:, f * hop : (f + 1) * hop]), state, expected[:, f])
    chunks = ChunkEncoder(engine, 3, books)
    first = chunks.encode(np.ascontiguousarray(samples[:, : 25 * hop]))
    chunks.keep([2, 0])
    rest = [chunks.encode(np.ascontiguousarray(samples[[2, 0], a * hop : b * hop])) for a, b in ((25, 26), (26, 60))]
    later = np.concatenate(rest, 1)
    with torch.no_grad():
        latent = engine.model.encode_latent(torch.from_numpy(samples)).numpy()
    differing = sum(disagreements(latent[b, :25], first[b], expected[b, :25]) for b in range(3))
    differing += sum(disagreements(latent[b, 25:], later[i], expected[b, 25:]) for i, b in enumerate((2, 0)))
    assert differing <= 3  # of 145 frames


@pytest.mark.parametrize("batch", [1, 3])
def test_batches_in_torch_give_the_codes_of_the_cpu_engine(mixed, local, tmp_path, batch):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from streamcodec.engine.torch import TorchEngine

    words = (mixed, tmp_path / "out", "--jobs", 2, "--shard-files", 5)
    assert tokenize(*words, "--backend", "torch", "--batch", batch) == 3
    found, expected = TokenDataset.open(tmp_path / "out"), TokenDataset.open(local)
    assert found.job.engine == "torch-cpu"
    assert found.skipped == expected.skipped
    assert {item.path for item in found.skipped} == set(BAD)
    checkpoint = load_checkpoint()
    engine = TorchEngine(checkpoint.config, checkpoint.arrays)
    differing = n_frames = 0
    for ours, theirs in zip(found, expected, strict=True):
        fields = [{**vars(file), "codes": None} for file in (ours, theirs)]
        assert fields[0] == fields[1]
        n_frames += ours.n_frames
        if (ours.codes != theirs.codes).any():
            heard = source_samples(mixed / ours.path, ours.n_frames)
            with torch.no_grad():
                latent = engine.model.encode_latent(torch.from_numpy(heard[None])).numpy()[0]
            differing += disagreements(latent, ours.codes, theirs.codes)
    assert n_frames > 300
    assert differing <= n_frames // 100


def source_samples(path: Path, n_frames: int) -> np.ndarray:
    """Float32 [n_frames * hop] of a file as it is tokenised."""
    sound = SourceSound(path.parent, Source(path.name, 0), 24_000, 320)
    return np.concatenate(list(sound.chunks(n_frames))).reshape(-1)


def test_files_longer_than_a_chunk_and_of_other_lengths_keep_their_places_in_a_batch(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    import soundfile

    from streamcodec.tokens import encoders

    monkeypatch.setattr(encoders, "CPU_CHUNK_S", 0.2)
    (tmp_path / "in").mkdir()
    for number, seconds in enumerate((0.3, 1.0, 0.2, 0.55, 0.1)):
        soundfile.write(tmp_path / f"in/{number}.wav", speech(24_000, number, seconds), 24_000, subtype="FLOAT")
    assert tokenize(tmp_path / "in", tmp_path / "out", "--backend", "torch", "--batch", 4, "--jobs", 2) == 0
    codec = streamcodec.Codec.load()
    wrong = 0
    for number, file in enumerate(TokenDataset.open(tmp_path / "out")):
        samples, _ = soundfile.read(tmp_path / f"in/{number}.wav", dtype="float32")
        expected = codec.tokenize(samples, 6000).T
        assert file.codes.shape == expected.shape
        wrong += int((file.codes != expected).any(1).sum())
    assert wrong <= 2  # near-ties, of 164 frames


def test_torch_on_a_cpu_takes_short_pieces(tmp_path, monkeypatch):
    """Long ones cost it three to seven times the processor time."""
    pytest.importorskip("torch", reason="torch is not installed")
    from streamcodec.engine.torch_chunks import ChunkEncoder

    lengths, encode = [], ChunkEncoder.encode
    monkeypatch.setattr(ChunkEncoder, "encode", lambda self, x: lengths.append(x.shape[1]) or encode(self, x))
    copies(tmp_path / "in", 2)
    assert tokenize(tmp_path / "in", tmp_path / "out", "--backend", "torch") == 0
    assert sum(lengths) == 36_160  # 1.5 s and the rest of a frame, of two files side by side
    assert max(lengths) <= 6400


def test_cuda_without_a_gpu_is_refused_before_anything_is_written(mixed, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    result = CliRunner().invoke(main, ["tokenize", str(mixed), str(tmp_path / "out"), "--device", "cuda"])
    assert result.exit_code == 1
    assert result.stderr.startswith("BackendError")
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
def test_a_gpu_gives_the_codes_of_the_cpu_engine(mixed, local, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    assert tokenize(mixed, tmp_path / "out", "--jobs", 2, "--shard-files", 5, "--device", "cuda") == 3
    pairs = list(zip(TokenDataset.open(tmp_path / "out"), TokenDataset.open(local), strict=True))
    wrong = sum(int((ours.codes != theirs.codes).any(1).sum()) for ours, theirs in pairs)
    assert wrong <= sum(ours.n_frames for ours, _ in pairs) // 50


def test_without_ray_its_extra_is_named(mixed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(main, ["tokenize", str(mixed), str(tmp_path / "out"), "--ray", "local"])
    assert result.exit_code == 1
    assert "streamcodec[ray]" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Ray without a cluster: `init` does nothing until a test says what."""
    fake = SimpleNamespace(is_initialized=lambda: False, init=lambda **_: None, data=SimpleNamespace())
    fake.exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.data", fake.data)
    return fake


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "auto"])
def test_where_no_cluster_answers_it_says_so_at_once_and_leaves_no_folder(mixed, tmp_path, fake_ray, monkeypatch, form):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    fake_ray.init = lambda **_: pytest.fail("Ray would try for a quarter of an hour")
    words = ["tokenize", str(mixed), str(tmp_path / "out"), "--ray", form.format(port)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert result.stderr.startswith("BackendError: Ray at ")
    assert f"127.0.0.1:{port}: nothing answers there" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_ray_says_of_an_address_is_told_in_one_line_and_leaves_no_folder(mixed, tmp_path, fake_ray):
    def refuse(**_):
        raise ConnectionError("no such cluster\n1. Try this\n2. Or that")

    fake_ray.init = refuse
    result = CliRunner().invoke(main, ["tokenize", str(mixed), str(tmp_path / "out"), "--ray", "nowhere"])
    assert (result.exit_code, result.stderr) == (1, "BackendError: Ray at nowhere: no such cluster\n")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def worker(mixed: Path, local: Path, tmp_path: Path) -> ShardWorker:
    """As Ray would make it, for the job of `local`, with weights at a path that is still empty."""
    job = TokenDataset.open(local).job
    return ShardWorker(job, str(tmp_path / "model.safetensors"), str(mixed), str(tmp_path), 1)


def row_of(worker: ShardWorker, number: int) -> dict[str, object]:
    shard = plan_shards(find_sources(worker.in_dir), 5, 10**9)[number]
    return {"shard": number, "sources": json.dumps([asdict(source) for source in shard])}


def test_a_worker_writes_the_shard_that_a_local_run_writes(worker, local):
    worker.model = None
    row = worker(row_of(worker, 1))
    assert row["problem"] == ""
    assert ShardSummary.from_json(row["summary"]).rows == len(list(TokenDataset.open(local).read_shard(1)))
    name = "shard-000001.parquet"
    assert (worker.out_dir / name).read_bytes() == (local / name).read_bytes()


def test_a_worker_without_the_right_weights_says_so_and_writes_nothing(worker):
    assert worker(row_of(worker, 0))["problem"].startswith("CheckpointError: no weights at")
    small_checkpoint(Path(worker.model))
    assert "not those of the job" in worker(row_of(worker, 0))["problem"]
    assert [path.name for path in worker.out_dir.iterdir()] == ["model.safetensors"]


def test_a_worker_that_does_not_find_the_folders_says_so_and_skips_nothing(worker, tmp_path):
    row = row_of(worker, 0)
    worker.in_dir, worker.model = tmp_path / "not mounted", None
    assert worker(row)["problem"].startswith("TokensError: no folder")
    assert not list(worker.out_dir.iterdir())


@pytest.mark.slow
def test_ray_finishes_what_was_begun_and_gives_the_same_bytes(mixed, local, tmp_path):
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("job.json", "shard-000001.parquet"):
        (out / name).write_bytes((local / name).read_bytes())
    words = [sys.executable, "-m", "streamcodec", "tokenize", str(mixed), str(out), "--shard-files", "5"]
    done = subprocess.run(
        [*words, "--jobs", "1", "--ray", "local"], capture_output=True, text=True, timeout=RAY_LIMIT_S, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "made 2 shards now" in done.stdout
    assert "skipped a/corrupt.ogg: " in done.stderr
    assert contents(out) == contents(local)
