import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from small_models import small_checkpoint
from token_folder import BAD, GOOD, contents, copies, good_folder, mixed_folder

import streamcodec
from streamcodec.cli import main
from streamcodec.errors import MissingExtraError, TokensError, WrongModel
from streamcodec.frames import FrameReader
from streamcodec.locks import folder_in_use
from streamcodec.tokens import TokenDataset
from streamcodec.tokens.run import TokenOptions, tokenize_folder
from streamcodec.tokens.sources import find_sources


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["tokenize", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    small_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_folder(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def small(weights: Path) -> tuple[object, ...]:
    return ("--model", weights, "--bitrate", 1.8, "--jobs", 2, "--shard-files", 3)


@pytest.fixture(scope="module")
def tokens(good: Path, small: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokens")
    result = run(good, out, *small)
    assert result.exit_code == 0, result.output
    return out


def test_codes_are_those_of_the_codec_for_the_mono_sound_at_its_rate(good, tokens, weights):
    codec = streamcodec.Codec.load(weights)
    found = {file.path: file for file in TokenDataset.open(tokens)}
    assert list(found) == sorted(GOOD, key=str.encode)
    for name, (rate_hz, channels, _, seconds) in GOOD.items():
        file = found[name]
        assert file.codes.dtype == np.int16
        assert file.codes.shape == (file.n_frames, 3)
        assert file.n_frames == -(-file.n_samples // codec.frame_samples)
        assert file.source_rate_hz == rate_hz
        assert file.duration_s == file.n_samples / 24_000 == pytest.approx(seconds, abs=0.06)  # MP3 is padded
        if channels == 1:
            frames = np.concatenate(list(FrameReader(good / name, codec)))
            np.testing.assert_array_equal(file.codes, codec.tokenize(frames.reshape(-1), 1800).T)


def test_stereo_is_mixed_to_mono(good, tokens, tmp_path, small):
    samples, rate_hz = soundfile.read(good / "b/c/stereo.flac", dtype="float32")
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/mono.wav", samples.mean(1), rate_hz, subtype="FLOAT")
    assert run(tmp_path / "in", tmp_path / "out", *small).exit_code == 0
    (mono,) = TokenDataset.open(tmp_path / "out")
    (stereo,) = (file for file in TokenDataset.open(tokens) if file.path == "b/c/stereo.flac")
    np.testing.assert_array_equal(mono.codes, stereo.codes)


@pytest.mark.parametrize("fmt", ["parquet", "npz"])
def test_files_that_cannot_be_read_are_named_skipped_recorded_and_in_the_exit_code(mixed, small, tmp_path, fmt):
    result = run(mixed, tmp_path / "out", *small, "--format", fmt)
    assert result.exit_code == 3, result.output
    dataset = TokenDataset.open(tmp_path / "out")
    assert {item.path for item in dataset.skipped} == set(BAD)
    for item in dataset.skipped:
        assert BAD[item.path] in item.reason
        assert str(mixed) not in item.reason
        assert f"skipped {item.path}: " in result.stderr
    assert [file.path for file in dataset] == sorted(GOOD, key=str.encode)
    assert len(dataset) == len(GOOD)


def test_a_file_that_breaks_off_inside_is_skipped_whole(small, tmp_path):
    source = tmp_path / "in"
    good_folder(source)
    path = source / "b/c/stereo.flac"
    path.write_bytes(path.read_bytes()[:20_000] + bytes(5000))
    assert run(source, tmp_path / "out", *small).exit_code == 3
    assert [item.path for item in TokenDataset.open(tmp_path / "out").skipped] == ["b/c/stereo.flac"]


def test_strict_stops_at_the_first_bad_file_also_when_it_was_skipped_before(mixed, small, tmp_path):
    for _ in range(2):
        result = run(mixed, tmp_path / "out", *small, "--strict")
        assert result.exit_code == 1
        assert result.stderr.startswith("AudioError: a/corrupt.ogg: ")
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / "out/index.json").exists()
        assert run(mixed, tmp_path / "out", *small).exit_code == 3
        (tmp_path / "out/index.json").unlink()


def test_the_result_does_not_depend_on_the_number_of_threads(good, tokens, small, tmp_path):
    assert run(good, tmp_path / "out", *small, "--jobs", 1).exit_code == 0
    assert contents(tmp_path / "out") == contents(tokens)


def test_killed_at_any_point_it_goes_on_and_the_result_is_byte_identical(tmp_path):
    source = copies(tmp_path / "in", 40)
    script = "import sys; sys.modules['torch'] = None; from streamcodec.cli import main; main()"  # nor needs torch
    words = [sys.executable, "-c", script, "tokenize", str(source)]
    options = ["--shard-files", "2", "--jobs", "2"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*words, str(killed), *options])
    end = time.monotonic() + 60
    while not (killed / "shard-000001.parquet").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (killed / "index.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("shard-*")}
    (killed / ".shard-000009.parquet.0123abcd.part").write_bytes(b"half")
    result = run(source, killed, *options)
    assert result.exit_code == 0, result.output
    assert f"made {20 - len(kept)} shards now" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert run(source, whole, *options).exit_code == 0
    assert contents(killed) == contents(whole)


def test_interrupted_it_says_that_the_same_command_goes_on(good, small, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("streamcodec.cli.tokenize.tokenize_folder", interrupted)
    result = run(good, tmp_path / "out", *small)
    assert result.exit_code == 128 + signal.SIGINT
    assert result.stderr == "stopped; the same command goes on after the last whole shard\n"


def test_a_second_run_makes_nothing_and_says_the_same(good, tokens, small):
    before = contents(tokens)
    result = run(good, tokens, *small, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["shards_made"], report["n_files"], report["n_shards"]) == (0, len(GOOD), 3)
    assert report["n_tokens"] == 3 * report["n_frames"] == 3 * sum(file.n_frames for file in TokenDataset.open(tokens))
    assert contents(tokens) == before


@pytest.mark.parametrize("fmt", ["parquet", "npz"])
def test_a_damaged_shard_is_refused_by_the_reader_and_made_anew(good, small, tmp_path, fmt):
    words = (good, tmp_path, *small, "--format", fmt)
    assert run(*words).exit_code == 0
    whole, path = contents(tmp_path), tmp_path / f"shard-000001.{fmt}"
    data = path.read_bytes()
    for damaged in (b"", b"PAR1 no longer", data[:-100], data[: len(data) // 2], b"x" * len(data)):
        path.write_bytes(damaged)
        with pytest.raises(TokensError, match="shard-000001"):
            list(TokenDataset.open(tmp_path))
        assert "made 1 shards" in run(*words).stdout
        assert contents(tmp_path) == whole
    for at in np.random.default_rng(0).integers(0, len(data), 40):
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        found, refusal = None, ""
        try:
            found = [(file.path, file.codes.tolist()) for file in TokenDataset.open(tmp_path).read_shard(1)]
        except TokensError as error:
            refusal = str(error)
        path.write_bytes(data)
        if found is None:
            assert "shard-000001" in refusal
        else:
            assert found == [(file.path, file.codes.tolist()) for file in TokenDataset.open(tmp_path).read_shard(1)]


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (("--bitrate", 1.2), "--bitrate 1.8, not 1.2"),
        (("--format", "npz"), "format = parquet, not npz"),
        (("--shard-files", 4), "--shard-files"),
        (("--model", "other"), "model_id"),
        (("--model", "encoder"), "weights_sha256"),
    ],
)
def test_another_model_bitrate_or_layout_is_refused_and_nothing_is_touched(
    good, tokens, small, weights, tmp_path, change, hint
):
    if change[1] == "other":
        small_checkpoint(tmp_path / "other", seed=1)
    if change[1] == "encoder":
        loaded = streamcodec.load_checkpoint(weights)
        changed = {name: 2 * a if name.startswith("encoder.0.") else a for name, a in loaded.arrays.items()}
        assert streamcodec.save_checkpoint(tmp_path / "encoder", loaded.config, changed).model_id == loaded.model_id
    before = contents(tokens)
    value = tmp_path / change[1] if change[0] == "--model" else change[1]
    result = run(good, tokens, *small, change[0], value)
    assert result.exit_code == 1
    assert result.stderr.startswith("TokensError")
    assert hint in result.stderr
    assert contents(tokens) == before


def test_other_files_than_those_begun_with_are_refused(small, tmp_path):
    source = good_folder(tmp_path / "in")
    assert run(source, tmp_path / "out", *small).exit_code == 0
    (source / "vorbis.ogg").rename(source / "moved.ogg")
    assert "other sound files" in run(source, tmp_path / "out", *small).stderr
    (source / "moved.ogg").unlink()
    assert "7 sound files where IN_DIR now has 6" in run(source, tmp_path / "out", *small).stderr


def test_without_pyarrow_parquet_is_refused_and_npz_holds_the_same(good, tokens, small, tmp_path, monkeypatch):
    expected = list(TokenDataset.open(tokens))
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run(good, tmp_path / "out", *small)
    assert result.exit_code == 1
    assert "streamcodec[tokenize]" in result.stderr
    assert not (tmp_path / "out").exists()
    assert run(good, tmp_path / "out", *small, "--format", "npz").exit_code == 0
    for file, other in zip(TokenDataset.open(tmp_path / "out"), expected, strict=True):
        assert vars(file).keys() == vars(other).keys()
        for name, value in vars(file).items():
            np.testing.assert_array_equal(value, getattr(other, name))
    with pytest.raises(MissingExtraError, match="tokenize"):
        list(TokenDataset.open(tokens))


def test_parquet_reads_as_documented_without_us(tokens):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = parquet.read_table(tokens / "shard-000000.parquet")
    (first, *_) = TokenDataset.open(tokens)
    row = table.slice(0, 1).to_pylist()[0]
    assert row["path"] == first.path
    assert row["codes"] == first.codes.tolist()
    assert json.loads(table.schema.metadata[b"streamcodec"])["job"]["n_codebooks"] == 3


def test_tokens_decode_to_the_sound_of_the_codec_and_only_with_its_weights(tokens, weights, tmp_path):
    codec, dataset = streamcodec.Codec.load(weights), TokenDataset.open(tokens)
    file = next(iter(dataset))
    heard = dataset.decode(file, codec)
    assert heard.shape == (file.n_samples,)
    np.testing.assert_array_equal(heard, codec.detokenize(file.codes.T)[: file.n_samples])
    small_checkpoint(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(WrongModel, match="id"):
        dataset.decode(file, streamcodec.Codec.load(tmp_path / "other.safetensors"))


def test_readers_can_share_the_shards(tokens):
    dataset = TokenDataset.open(tokens)
    shared = [file.path for number in range(len(dataset.shards)) for file in dataset.read_shard(number)]
    assert shared == [file.path for file in dataset]
    assert dataset.rows == [3, 3, 1]


@pytest.mark.parametrize(
    ("text", "hint"),
    [("{", "not JSON"), ("[]", "object"), ("{}", "version None"), ('{"format_version": 1}', "no format")],
)
def test_a_damaged_index_is_named(tmp_path, text, hint):
    with pytest.raises(TokensError, match="no folder of tokens"):
        TokenDataset.open(tmp_path)
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(TokensError, match="not finished"):
        TokenDataset.open(tmp_path)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(TokensError, match=hint):
        TokenDataset.open(tmp_path)


def test_mistakes_leave_no_folder_behind(good, weights, tmp_path):
    (tmp_path / "empty").mkdir()
    for words, hint in (
        ((tmp_path / "empty",), "no sound file"),
        ((good, "--bitrate", 5), "choose a multiple"),
        ((good, "--model", weights, "--bitrate", 1.8, "--backend", "cpu", "--device", "cuda"), "another pair"),
    ):
        result = run(words[0], tmp_path / "out", *words[1:])
        assert result.exit_code == 1
        assert hint in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(TokensError, match="shard_files is 0"):
        TokenOptions(shard_files=0)


def test_progress_counts_every_byte_once(mixed, weights, tmp_path):
    whole, done = [], []
    options = TokenOptions(model=weights, bitrate_bps=600, shard_files=4)
    for _ in range(2):
        tokenize_folder(mixed, tmp_path / "out", options, whole.append, done.append)
        assert sum(done) == whole.pop() > 0
        done.clear()


@pytest.mark.parametrize("fmt", ["npz", "parquet"])
def test_without_room_the_shard_is_named_and_no_part_of_it_stays(good, small, tmp_path, fmt):
    resource = pytest.importorskip("resource", reason="this system has no limit on the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, before[1]))
    try:
        result = run(good, tmp_path / "out", *small, "--format", fmt)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    assert f"{tmp_path / 'out'}/shard-00000" in result.stderr
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.endswith(".part")]
    assert run(good, tmp_path / "out", *small, "--format", fmt).exit_code == 0


def test_a_second_run_in_the_folder_says_so_and_removes_nothing(tmp_path, good, small):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".shard-00000.npz.0123.part").write_bytes(b"of the other run")
    with folder_in_use(out):
        result = run(good, out, *small)
    assert result.exit_code == 1
    assert "another run" in result.stderr
    assert (out / ".shard-00000.npz.0123.part").exists()


def test_folders_nested_too_deeply_are_one_error(tmp_path, monkeypatch):
    def deep(*_arguments, **_options):
        raise RecursionError

    monkeypatch.setattr("os.walk", deep)
    with pytest.raises(TokensError, match="nested hundreds deep"):
        find_sources(tmp_path)
