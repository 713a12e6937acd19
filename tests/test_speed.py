"""The speed comparison: what is timed works, runs in turns, and says why something is left out."""

import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from streamcodec.architecture import footprint
from streamcodec.cli import bench
from streamcodec.config import PRESETS
from streamcodec.errors import StreamcodecError
from streamcodec.evaluation import speed
from streamcodec.evaluation.contestants import Contestant, opus, ours
from streamcodec.evaluation.speed import check, measure, speed_table, timing_sound


def fake(name, rate_hz=8000, decode=lambda coded: coded):
    return Contestant(name, "frame by frame", rate_hz, lambda sound: sound, decode, 20.0)


def test_contestants_run_in_turns(monkeypatch):
    calls = []

    def logged(name):
        return Contestant(
            name, "whole clip", 8000, lambda sound: calls.append(name) or sound, lambda coded: coded, None, 10, 2e9
        )

    monkeypatch.setattr(speed, "CONTESTANTS", {"a": lambda: logged("a"), "b": lambda: logged("b")})
    seen = []
    speeds, notes = measure(["a", "b"], seconds=0.5, rounds=3, progress=lambda done, total: seen.append((done, total)))
    assert calls[2:] == ["a", "b"] * 3  # after one check each
    assert seen[-1] == (6, 6)
    assert notes == []
    assert speeds[0].encode <= speeds[0].encode_worst
    table = speed_table(speeds)
    assert "both / a" in table
    assert "no stream" in table
    assert "2.00" in table


def test_what_does_not_work_is_not_timed(monkeypatch):
    check(fake("good"), timing_sound(1, 8000))
    broken = [
        lambda: fake("short", decode=lambda coded: coded[:100]),
        lambda: fake("nan", decode=lambda coded: coded * np.nan),
    ]
    monkeypatch.setattr(speed, "CONTESTANTS", {"a": broken[0], "b": broken[1], "c": lambda: fake("c")})
    speeds, notes = measure(["a", "b", "c"], seconds=0.5, rounds=1)
    assert [s.contestant.name for s in speeds] == ["c"]
    assert [note.split(":")[0] for note in notes] == ["a left out", "b left out"]


def test_timing_sound_is_the_same_every_time_at_every_rate():
    np.testing.assert_array_equal(timing_sound(1, 24_000), timing_sound(1, 24_000))
    assert len(timing_sound(0.5, 44_100)) == 22_050


def test_opus_and_ours_work_and_know_their_numbers():
    pytest.importorskip("av", reason="needs streamcodec[eval]")
    check(opus(12), timing_sound(1, 24_000))
    mine = ours("tiny-24k", 6)
    sound = timing_sound(1, 24_000)
    check(mine, sound)
    assert [len(packet) for packet in mine.encode(sound)] == [10] * 75
    costs = footprint(PRESETS["tiny-24k"])
    assert (mine.weights, mine.latency_ms) == (costs.weights, pytest.approx(13.33, abs=0.01))


def test_macs_of_layers_are_counted_by_hand():
    pytest.importorskip("transformers", reason="needs transformers")
    import torch

    from streamcodec.evaluation.codecs.transformers import TransformersCodec

    codec = TransformersCodec.__new__(TransformersCodec)
    codec._torch = torch
    codec.model = torch.nn.ModuleList(
        [
            torch.nn.Conv1d(4, 6, 3, groups=2),
            torch.nn.ConvTranspose1d(6, 2, 4, stride=2),
            torch.nn.Linear(5, 7),
            torch.nn.LSTM(3, 8),
        ]
    )
    with codec.counted_macs() as macs:
        conv, transposed, linear, lstm = codec.model
        transposed(conv(torch.zeros(1, 4, 12)))
        linear(torch.zeros(2, 5))
        lstm(torch.zeros(9, 1, 3))
    assert macs() == 10 * 6 * 2 * 3 + 10 * 6 * 2 * 4 + 2 * 5 * 7 + 9 * 4 * 8 * (3 + 8)


def test_command_leaves_out_peers_that_cannot_run(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    arguments = [
        "peers",
        "--codecs",
        "tiny-24k,mimi",
        "--seconds",
        "0.5",
        "--rounds",
        "1",
        "--json",
        str(tmp_path / "s.json"),
    ]
    result = CliRunner().invoke(bench.command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "| tiny-24k @6 |" in result.stdout
    assert "mimi left out: transformers is not installed" in result.stderr
    data = json.loads((tmp_path / "s.json").read_text())
    assert data["codecs"][0]["name"] == "tiny-24k @6"
    assert set(data["machine"]) == {"processor", "system", "versions", "date"}
    assert CliRunner().invoke(bench.command, ["peers", "--codecs", "mp3"]).exit_code == 2


def test_check_names_the_codec():
    with pytest.raises(StreamcodecError, match="short makes 100 samples"):
        check(fake("short", decode=lambda coded: coded[:100]), timing_sound(1, 8000))
