"""What the evaluation shows: tables, entropy, plots, the report, and the commands."""

import base64
import csv
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from headless_browser import Browser, find_chromium

from streamcodec.cli import evaluate as evaluate_cli
from streamcodec.cli import plot as plot_cli
from streamcodec.errors import CheckpointError, StreamcodecError
from streamcodec.evaluation import report
from streamcodec.evaluation.ablations import ablation_table, find_runs
from streamcodec.evaluation.cache import Row
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs import Spec
from streamcodec.evaluation.codecs.coded import Coded
from streamcodec.evaluation.entropy import code_statistics, entropy_text
from streamcodec.evaluation.plots import comparison_plot, quality_plot
from streamcodec.evaluation.table import Estimate, as_csv, as_json, as_text, summarise

RATE_HZ = 24_000
METRICS = ("mel", "pesq")


def rows():
    made = []
    for codec, kbps, offset in (("ours@3", 3.0, 0.0), ("opus@6", 5.5, 1.0)):
        for i, category in enumerate(("speech", "speech", "music")):
            pesq = None if category == "music" else 2.0 + i
            made.append(
                Row(codec, f"c{i}", category, RATE_HZ, 2.0, kbps, 12_000, {"mel": 1.0 + i + offset, "pesq": pesq})
            )
    return made


def tone(seconds=6.0, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (0.2 * np.sin(2 * np.pi * 300 * t * (1 + 0.1 * np.sin(t))) + 0.02 * rng.standard_normal(len(t))).astype(
        np.float32
    )


def test_estimate_is_students_interval():
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.count) == (2.0, 3)
    assert estimate.half_width == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)  # t(0.975, 2), s = 1
    assert estimate.text(2) == "2.00 ±2.48"
    assert Estimate.of([1.0]).text(1) == "1.0"
    assert Estimate.of([]) is None


def test_table_counts_each_metric_over_the_clips_that_have_it():
    summaries = summarise(rows(), METRICS, by_category=True)
    assert [(s.codec, s.category, s.clips) for s in summaries] == [
        ("ours@3", "all", 3), ("opus@6", "all", 3), ("ours@3", "music", 1),
        ("opus@6", "music", 1), ("ours@3", "speech", 2), ("opus@6", "speech", 2),
    ]  # fmt: skip
    assert summaries[0].estimates["pesq"].count == 2
    assert summaries[2].estimates["pesq"] is None
    text = as_text(summaries, METRICS)
    assert "mel ↓" in text
    assert "PESQ ↑" in text
    assert len({len(line) for line in text.splitlines()}) == 1
    assert len(summarise(rows(), METRICS)) == 2


def test_rates_are_never_averaged_together():
    low = [Row("ours@3", "a", "speech", 16_000, 2.0, 3.0, 0, {"mel": 5.0})]
    high = [Row("ours@3", "a", "speech", 48_000, 2.0, 3.0, 0, {"mel": 1.0})]
    summaries = summarise(low + high, ("mel",))
    assert [(s.sample_rate_hz, s.estimates["mel"].mean) for s in summaries] == [(16_000, 5.0), (48_000, 1.0)]
    assert "at kHz" in as_text(summaries, ("mel",))
    assert "at kHz" not in as_text(summaries[:1], ("mel",))


def test_bitrate_is_bits_over_seconds_not_a_mean_of_rates():
    long = Row("ours@3", "long", "speech", RATE_HZ, 8.0, 1.0, 0, {})
    short = Row("ours@3", "short", "speech", RATE_HZ, 2.0, 6.0, 0, {})
    assert summarise([long, short], ())[0].kbps == pytest.approx(2.0)


def test_csv_and_json_hold_the_same_numbers():
    summaries = summarise(rows(), METRICS)
    (ours, _) = csv.DictReader(io.StringIO(as_csv(summaries, METRICS)))
    data = json.loads(as_json(summaries, rows(), {"sample_rate_hz": RATE_HZ}))
    assert float(ours["mel"]) == data["table"][0]["estimates"]["mel"]["mean"] == 2.0
    assert float(ours["mel_ci95"]) == pytest.approx(data["table"][0]["estimates"]["mel"]["half_width"], abs=1e-5)
    assert ours["pesq_clips"] == "2"
    assert len(data["clips"]) == 6
    assert data["clips"][2]["scores"]["pesq"] is None


def coded_row(codec, clip, codes, size=16):
    return Row(codec, clip, "speech", RATE_HZ, 2.0, 3.0, 0, {"mel": 1.0}, size, codes.astype(np.int16))


def test_entropy_is_shown_for_the_highest_bitrate_of_each_weights_file():
    rng = np.random.default_rng(0)
    full = rng.integers(0, 16, (2, 20_000))
    made = [coded_row("ours@3", "a", full[:1]), coded_row("ours@6", "a", full), coded_row("ours:b.st@3", "a", full * 0)]
    uniform, dead = code_statistics([*made, *rows()])
    assert (uniform.codec, len(uniform.books), dead.codec) == ("ours@6", 2, "ours:b.st@3")
    assert uniform.efficiency == pytest.approx(1, abs=1e-3)
    assert dead.efficiency == 0
    text = entropy_text(uniform)
    assert "ours@6: 4 bits a code, 20000 frames" in text
    assert "100.0% of the bitrate" in text


def test_pictures_are_png():
    pytest.importorskip("matplotlib", reason="needs streamcodec[eval]")
    assert quality_plot(summarise(rows(), METRICS), METRICS).startswith(b"\x89PNG")
    x = tone(1.0)
    assert comparison_plot(x, 0.5 * x, RATE_HZ, ("a", "b")).startswith(b"\x89PNG")
    assert comparison_plot(np.zeros(2000, np.float32), np.zeros(2000, np.float32), 8000, ("a", "b")).startswith(
        b"\x89PNG"
    )


def test_report_stands_alone_and_its_players_hold_the_sound(monkeypatch):
    pytest.importorskip("matplotlib", reason="needs streamcodec[eval]")
    half = SimpleNamespace(code=lambda clip: Coded(clip.samples / 2, clip.sample_rate_hz, 1.0))
    monkeypatch.setattr(report, "open_codec", lambda spec: half)
    clips = [
        Clip("</script><b>", category, "s", tone(1.0, i), RATE_HZ) for i, category in enumerate(("music", "speech"))
    ]
    specs = [Spec.parse("ours@3"), Spec.parse("opus@6"), Spec.parse("mimi@1.1")]
    page = report.html_report(summarise(rows(), METRICS), rows(), clips, specs, METRICS, ["mimi@1.1 left out: <no>"])
    assert not re.search(r"(src|href)\s*=\s*[\"']?(http|//)", page)
    assert "&lt;no&gt;" in page
    assert page.count("</script>") == 2
    players = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert [player["category"] for player in players] == ["music", "speech"]
    assert [version["name"] for version in players[0]["versions"]] == ["original", "ours@3", "opus@6"]
    for version in players[0]["versions"]:  # level-matched: half as loud is as loud
        samples, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(version["flac"])))
        assert rate_hz == RATE_HZ
        np.testing.assert_allclose(samples, clips[0].samples, atol=1e-4)


def test_players_switch_without_losing_their_place(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason="needs streamcodec[eval]")
    if find_chromium() is None:
        pytest.skip("needs Chromium on the PATH")
    half = SimpleNamespace(code=lambda clip: Coded(clip.samples / 2, clip.sample_rate_hz, 1.0))
    monkeypatch.setattr(report, "open_codec", lambda spec: half)
    clips = [Clip("a clip", "speech", "s", tone(3.0), RATE_HZ)]
    page = report.html_report(summarise(rows(), METRICS), rows(), clips, [Spec.parse("ours@3")], METRICS, [])
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        browser.value("window.made = []")
        browser.call(
            "Page.addScriptToEvaluateOnNewDocument",
            source="window.made = []; window.Audio = class extends Audio {"
            " constructor(...a) { super(...a); made.push(this); } };",
        )
        browser.open((tmp_path / "report.html").as_uri())
        browser.wait("made.length === 2 && made.every((audio) => audio.readyState >= 1)")
        browser.value("document.querySelector('fieldset button').focus()")
        browser.press(" ")
        browser.wait("made[0].currentTime > 0.2")
        browser.press("2")
        assert browser.value("made[0].paused && !made[1].paused && made[1].currentTime > 0.15")
        pressed = "[...document.querySelectorAll('button[aria-pressed=true]')].map((b) => b.textContent)"
        assert browser.value(pressed) == ["2 ours@3"]
        browser.press(" ")
        assert browser.value("made[1].paused")
        assert browser.errors == []


def test_ablation_table_reads_runs_with_and_without_logs(tmp_path):
    for name in ("full", "no-mpd", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "best.safetensors").write_bytes(b"w")
    (tmp_path / "full" / "metrics.jsonl").write_text('{"step": 100}\n{"step": 200, "mel": 1}\n[1]\n{"step": 3')
    (tmp_path / "no-mpd" / "best.safetensors").write_bytes(b"w")
    runs = find_runs(tmp_path)
    assert [(run.name, run.steps) for run in runs] == [("full", 200), ("no-mpd", None)]
    codes = np.random.default_rng(0).integers(0, 16, (2, 5000))
    made = [coded_row(str(runs[0].spec(6)), "a", codes)]
    lines = ablation_table(runs, 6, made, ("mel",)).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert cells == [["full", "200", "1.000", "100.0%", "1"], ["no-mpd", "-", "-", "-", "0"]]
    with pytest.raises(CheckpointError, match="holds no run"):
        find_runs(tmp_path / "empty")


def test_evaluate_command_makes_every_output(tmp_path):
    for package in ("av", "matplotlib"):
        pytest.importorskip(package, reason="needs streamcodec[eval]")
    soundfile.write(tmp_path / "speech.wav", tone(11.0), RATE_HZ)
    names = ("t.csv", "t.json", "t.png", "t.html")
    flags = [
        part
        for flag, name in zip(("--csv", "--json", "--plot", "--html"), names, strict=True)
        for part in (flag, str(tmp_path / name))
    ]
    arguments = [
        str(tmp_path / "speech.wav"),
        "--codecs",
        "opus@16,lyra@6",
        "--metrics",
        "mel,si_sdr",
        "--rate-hz",
        "24000",
        "--rate-hz",
        "16000",
        "--jobs",
        "1",
        "--cache",
        str(tmp_path / "cache"),
    ]
    result = CliRunner().invoke(evaluate_cli.command, [*arguments, *flags], catch_exceptions=False)
    assert result.exit_code == 0
    assert re.findall(r"\| opus@16 +\| +(\d+) \|", result.stdout) == ["24", "16"]
    assert "lyra@6 left out: Lyra's TFLite files are not bundled" in result.stderr
    assert all((tmp_path / name).stat().st_size > 100 for name in names)
    assert list((tmp_path / "cache").rglob("*.npz"))


def test_evaluate_command_tells_usage_errors_from_bad_input(tmp_path):
    assert CliRunner().invoke(evaluate_cli.command, []).exit_code == 2
    soundfile.write(tmp_path / "x.wav", tone(6.0), RATE_HZ)
    for arguments in (
        ["nowhere"],
        [str(tmp_path / "x.wav"), "--codecs", "mp3@64"],
        [str(tmp_path / "x.wav"), "--codecs", "lyra@6"],
    ):
        result = CliRunner().invoke(evaluate_cli.command, arguments)
        assert isinstance(result.exception, StreamcodecError)
        assert "\n" not in str(result.exception)


def test_plot_command_draws_beside_the_decoded_file(tmp_path):
    pytest.importorskip("matplotlib", reason="needs streamcodec[eval]")
    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE_HZ)
    soundfile.write(tmp_path / "b.wav", tone(1.1)[:16_000], 16_000)
    result = CliRunner().invoke(
        plot_cli.command, [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    assert CliRunner().invoke(plot_cli.command, [str(tmp_path / "a.wav"), "nowhere.wav"]).exit_code == 2
