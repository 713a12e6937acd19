import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from streamcodec.audio.files import write_audio
from streamcodec.cli import main
from streamcodec.cli.loopback import sample_path
from streamcodec.metrics.si_sdr import si_sdr

SECONDS = 3


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples, rate_hz = soundfile.read(sample_path(), dtype="float32", frames=16_000 * SECONDS)
    path = tmp_path_factory.mktemp("speech") / "s.wav"
    write_audio(path, samples, rate_hz)
    return path


@pytest.fixture(scope="module")
def coded(speech: Path) -> Path:
    path = speech.with_suffix(".scx")
    result = run("encode", speech, path, "--bitrate", 6)
    assert result.exit_code == 0, result.output
    return path


def test_encode_then_decode_gives_sound_of_the_same_rate_and_length(speech, coded, tmp_path):
    result = run("decode", coded, tmp_path / "o.wav", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_samples"] == 16_000 * SECONDS
    info = soundfile.info(tmp_path / "o.wav")
    assert (info.samplerate, info.channels, info.frames) == (16_000, 1, 16_000 * SECONDS)


def test_decoded_speech_resembles_the_original_in_its_loudness_over_time(speech, coded, tmp_path):
    run("decode", coded, tmp_path / "o.wav")
    original, _ = soundfile.read(speech)
    decoded, _ = soundfile.read(tmp_path / "o.wav")
    levels = [np.log10(np.square(x.reshape(-1, 800)).mean(1) + 1e-6) for x in (original, decoded)]
    assert np.corrcoef(levels)[0, 1] > 0.9


def test_the_file_has_the_stated_bitrate(coded):
    true_bps = 8 * coded.stat().st_size / SECONDS
    assert abs(true_bps - 6000) < 0.05 * 6000


def test_info_describes_presets_weights_and_coded_files(coded):
    for what in ((), ("base-24k",), ("dac-44k",), (coded,)):
        result = run("info", *what, "--json")
        assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["duration_s"] == SECONDS
    assert json.loads(run("info", "base-24k", "--json").stdout)["hop_samples"] == 320


def test_paced_loopback_reports_latency_and_writes_what_it_heard(speech, tmp_path):
    result = run("loopback", "--input", speech, "--output", tmp_path / "o.wav", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["frames"] == 75 * SECONDS
    assert report["bitrate_bps"] == pytest.approx(6000)
    assert report["latency"]["p50_ms"] > 1000 / 75
    assert soundfile.info(tmp_path / "o.wav").frames == 16_000 * SECONDS


def test_fast_loopback_equals_encode_then_decode(speech, coded, tmp_path):
    run("decode", coded, tmp_path / "a.wav")
    assert run("loopback", "--input", speech, "--output", tmp_path / "b.wav", "--fast").exit_code == 0
    first, second = (soundfile.read(tmp_path / name, dtype="float32")[0] for name in ("a.wav", "b.wav"))
    assert si_sdr(first, second, 16_000) > 60


def test_stereo_is_coded_as_two_streams(speech, tmp_path):
    mono, rate_hz = soundfile.read(speech, dtype="float32", frames=16_000)
    write_audio(tmp_path / "st.wav", np.stack([mono, mono[::-1]], 1), rate_hz)
    write_audio(tmp_path / "left.wav", mono, rate_hz)
    for name in ("st", "left"):
        assert run("encode", tmp_path / f"{name}.wav", tmp_path / f"{name}.scx").exit_code == 0
        assert run("decode", tmp_path / f"{name}.scx", tmp_path / f"{name}-out.wav").exit_code == 0
    both, left = (soundfile.read(tmp_path / f"{name}-out.wav", dtype="float32")[0] for name in ("st", "left"))
    np.testing.assert_allclose(both[:, 0], left, atol=1e-4)


def test_a_cut_file_decodes_up_to_the_cut_and_says_so(coded, tmp_path):
    cut = tmp_path / "cut.scx"
    cut.write_bytes(coded.read_bytes()[:-400])
    result = run("decode", cut, tmp_path / "o.wav")
    assert result.exit_code == 3
    assert "TruncatedStream" in result.stderr
    assert 0 < soundfile.info(tmp_path / "o.wav").frames < 16_000 * SECONDS
    strict = run("decode", cut, tmp_path / "strict.wav", "--strict")
    assert strict.exit_code == 1
    assert not (tmp_path / "strict.wav").exists()


def test_a_damaged_block_is_concealed_and_counted(coded, tmp_path):
    data = bytearray(coded.read_bytes())
    data[60] ^= 1
    (tmp_path / "bad.scx").write_bytes(data)
    result = run("decode", tmp_path / "bad.scx", tmp_path / "o.wav", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["lost_frames"] > 0
    assert soundfile.info(tmp_path / "o.wav").frames == 16_000 * SECONDS


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("encode", "no-such.wav", "x.scx"), 2, "does not exist"),
        (("encode",), 2, "Missing argument"),
        (("info", "no-such-thing"), 1, "no preset"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_mistakes_get_one_clear_line_and_the_right_exit_code(words, code, hint):
    result = run(*words)
    assert result.exit_code == code
    assert hint in result.output
    assert "Traceback" not in result.output


def test_a_bitrate_between_two_steps_is_refused_and_nothing_is_written(speech, tmp_path):
    result = run("encode", speech, tmp_path / "x.scx", "--bitrate", 5)
    assert result.exit_code == 1
    assert "choose a multiple of 750" in result.stderr
    assert not list(tmp_path.iterdir())


def test_text_is_not_sound_and_sound_is_not_a_coded_file(speech, tmp_path):
    (tmp_path / "t.wav").write_text("no sound")
    for words in (("encode", tmp_path / "t.wav", tmp_path / "x.scx"), ("decode", speech, tmp_path / "o.wav")):
        result = run(*words)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1


def test_coded_with_other_weights_is_refused(coded, tmp_path):
    data = bytearray(coded.read_bytes())
    header = data[:41]
    from streamcodec.bitstream import ScxHeader

    changed = ScxHeader.from_bytes(bytes(header))
    other = ScxHeader(**{**changed.__dict__, "model_id": bytes(8)})
    (tmp_path / "other.scx").write_bytes(other.to_bytes() + data[41:])
    result = run("decode", tmp_path / "other.scx", tmp_path / "o.wav")
    assert result.exit_code == 1
    assert "WrongModel" in result.stderr


def test_encode_decode_and_loopback_never_import_torch(speech, tmp_path):
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from streamcodec.cli import main\n"
        f"words = [['encode', {str(speech)!r}, 'a.scx'], ['decode', 'a.scx', 'a.wav'],"
        f" ['loopback', '--fast', '--input', {str(speech)!r}, '--output', 'b.wav'], ['info']]\n"
        "for line in words:\n    main(line, standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.wav").exists()


def every_verb(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*words, name)
        if isinstance(command, click.Group):
            yield from every_verb(command, (*words, name))


def test_the_help_of_every_verb_has_no_marks_of_its_markup():
    for words in every_verb(main):
        result = run(*words, "--help")
        assert result.exit_code == 0, result.output
        for mark in ("\\b", "\b", "``"):
            assert mark not in result.output, words


@pytest.mark.parametrize(
    ("verb", "start"), [("encode", "ffmpeg -i film.mkv"), ("decode", "streamcodec decode --format")]
)
def test_the_help_prints_an_example_on_one_line(verb, start):
    lines = [line.strip() for line in run(verb, "--help").output.splitlines()]
    assert any(line.startswith(start) for line in lines)


@pytest.mark.parametrize("verb", ["decode", "info"])
@pytest.mark.parametrize("begin", [b"RIFF....", b"\x89SCX\x02", b"\x89SCX\x01\x00", b""])
def test_a_file_that_cannot_be_decoded_is_named(verb, begin, tmp_path):
    path = tmp_path / "talk.scx"
    path.write_bytes(begin)
    result = run(verb, path, *([tmp_path / "o.wav"] if verb == "decode" else []))
    assert result.exit_code == 1
    assert f": {path}: " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("rate_hz", [7, 800_000_000])
@pytest.mark.parametrize("verb", ["encode", "loopback"])
def test_a_rate_that_cannot_be_coded_is_told_of_the_file_that_has_it(verb, rate_hz, tmp_path):
    source, target = tmp_path / "in.wav", tmp_path / "o.wav"
    soundfile.write(source, np.zeros(500), rate_hz)
    result = run(
        *("encode", source, target) if verb == "encode" else (verb, "--fast", "--input", source, "--output", target)
    )
    assert result.exit_code == 1
    assert f"{source} has a sample rate of {rate_hz} Hz; rates from 1000 to 768000 can be read" in result.stderr
    assert not target.exists()


def test_an_output_without_an_ending_is_told_so(coded, tmp_path):
    result = run("decode", coded, tmp_path / "sound")
    assert (result.exit_code, "has no ending; sound is written to .wav" in result.stderr) == (1, True)
