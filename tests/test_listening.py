"""The listening test: stimuli, page, server, screening and analysis."""

import errno
import json
import os
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from headless_browser import Browser, find_chromium

from streamcodec.cli import listen as listen_cli
from streamcodec.errors import AudioError, ConfigError, DeviceError
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs import Spec
from streamcodec.evaluation.codecs.coded import Coded
from streamcodec.listening import prepare, results
from streamcodec.listening import server as server_module
from streamcodec.listening.analyse import ratings_csv, ratings_plot, ratings_table, screen, summarise_ratings
from streamcodec.listening.loudness import k_filters, loudness_lufs
from streamcodec.listening.results import Key, Ratings, Stimulus, parse_ratings, read_key, read_results
from streamcodec.listening.server import make_server

RATE_HZ = 24_000


def noise(seconds=2.0, seed=0, rate_hz=RATE_HZ, level=0.05):
    return (level * np.random.default_rng(seed).standard_normal(int(seconds * rate_hz))).astype(np.float32)


@pytest.fixture
def quiet_codec(monkeypatch):
    """Every codec returns the clip at half its level."""
    half = SimpleNamespace(code=lambda clip: Coded(clip.samples / 2, clip.sample_rate_hz, 1.0))
    monkeypatch.setattr(prepare, "open_codec", lambda spec: half)


def clips(count=2):
    return [Clip(f"clip {i}", ("speech", "music")[i % 2], "s", noise(1.0, seed=i), RATE_HZ) for i in range(count)]


def test_k_weighting_has_the_standards_coefficients():
    shelf, high_pass = k_filters(48_000)  # ITU-R BS.1770-4, tables 1 and 2
    np.testing.assert_allclose(shelf[0], [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-10)
    np.testing.assert_allclose(shelf[1], [1, -1.69065929318241, 0.73248077421585], atol=1e-10)
    np.testing.assert_allclose(high_pass[0], [1, -2, 1])
    np.testing.assert_allclose(high_pass[1], [1, -1.99004745483398, 0.99007225036621], atol=1e-10)


@pytest.mark.parametrize("rate_hz", [24_000, 44_100, 48_000])
def test_loudness_of_a_full_scale_sine_is_the_standards(rate_hz):
    sine = np.sin(2 * np.pi * 997 * np.arange(5 * rate_hz) / rate_hz).astype(np.float32)
    assert loudness_lufs(sine, rate_hz) == pytest.approx(-3.01, abs=0.03)
    assert loudness_lufs(sine / 10, rate_hz) == pytest.approx(-23.01, abs=0.03)


def test_loudness_passes_over_silence():
    x = noise(5.0)
    padded = np.concatenate([x, np.zeros(10 * RATE_HZ, np.float32)])
    assert loudness_lufs(padded, RATE_HZ) == pytest.approx(loudness_lufs(x, RATE_HZ), abs=0.2)
    assert loudness_lufs(np.zeros(RATE_HZ, np.float32), RATE_HZ) == -np.inf


@pytest.mark.parametrize("cutoff_hz", [3500, 7000])
def test_anchors_are_flat_below_and_gone_above(cutoff_hz):
    click = np.zeros(8192, np.float32)
    click[4096] = 1
    low = prepare.anchor(click, RATE_HZ, cutoff_hz)
    assert np.argmax(np.abs(low)) == 4096
    gain, hz = np.abs(np.fft.rfft(low)), np.fft.rfftfreq(len(click), 1 / RATE_HZ)
    np.testing.assert_allclose(gain[hz <= cutoff_hz], 1, atol=0.01)  # within 0.1 dB
    assert gain[hz >= cutoff_hz + 500].max() < 10 ** (-55 / 20)


def test_all_versions_are_equally_loud_and_none_clips(quiet_codec):
    clip = clips(1)[0]
    trial = prepare.make_trial(clip, [Spec.parse("opus@6"), Spec.parse("ours@3")])
    assert list(trial.versions) == ["reference", "anchor 3.5 kHz", "anchor 7 kHz", "opus@6", "ours@3"]
    levels = [loudness_lufs(version, RATE_HZ) for version in trial.versions.values()]
    np.testing.assert_allclose(levels, -23, atol=0.01)
    spiky = noise(1.0, level=1e-3)
    spiky[5000] = 1.0
    trial = prepare.make_trial(Clip("x", "speech", "s", spiky, RATE_HZ), [Spec.parse("opus@6")])
    assert max(np.abs(version).max() for version in trial.versions.values()) == pytest.approx(0.99)
    assert np.ptp([loudness_lufs(version, RATE_HZ) for version in trial.versions.values()]) < 0.01


def test_a_low_rate_has_no_anchor_that_it_cannot_show(quiet_codec):
    clip = Clip("x", "speech", "s", noise(1.0, rate_hz=8000), 8000)
    assert list(prepare.make_trial(clip, [Spec.parse("opus@6")]).versions) == ["reference", "opus@6"]


def test_more_than_twelve_versions_are_refused(quiet_codec):
    with pytest.raises(ConfigError, match="at most 9"):
        prepare.make_trial(clips(1)[0], [Spec.parse(f"opus@{kbps}") for kbps in range(6, 16)])


def test_page_stands_alone_and_gives_no_condition_away(quiet_codec, tmp_path):
    prepare.write_test(tmp_path, clips(), [Spec.parse("opus@6")], seed=1)
    page = (tmp_path / "index.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    for word in ("opus", "anchor 3", "clip 0"):
        assert word not in page
    key = read_key(tmp_path)
    assert sorted(s.condition for s in key.stimuli.values()) == sorted(
        ["reference", "anchor 3.5 kHz", "anchor 7 kHz", "opus@6"] * 2
    )
    (tmp_path / "results" / "a.json").write_text("{}")
    with pytest.raises(ConfigError, match="already holds results"):
        prepare.write_test(tmp_path, clips(), [Spec.parse("opus@6")])


def key_and_ratings():
    conditions = ("reference", "anchor 3.5 kHz", "anchor 7 kHz", "opus@6")
    stimuli = {
        f"{c}{i}": Stimulus(conditions[c], f"clip {i}", ("speech", "music")[i % 2]) for c in range(4) for i in range(10)
    }

    def listener(name, reference=100, middle=50):
        scores = {"reference": reference, "anchor 3.5 kHz": 20, "anchor 7 kHz": middle, "opus@6": 70}
        return Ratings(name, {key: float(scores[stimulus.condition]) for key, stimulus in stimuli.items()})

    return Key("t", stimuli), listener


def test_screening_leaves_out_who_misses_the_reference_or_praises_the_anchor():
    key, listener = key_and_ratings()
    once, twice = listener("once"), listener("twice")
    once.scores["00"] = 80.0  # 10 % of the clips: still within the standard's 15 %
    twice.scores.update({"00": 80.0, "01": 80.0})
    kept, notes = screen([listener("good"), once, twice, listener("generous", middle=95)], key)
    assert [ratings.listener for ratings in kept] == ["good", "once"]
    assert notes == [
        "twice left out: hidden reference below 90 in 20% of the clips",
        "generous left out: anchor 7 kHz above 90 in 100% of the clips",
    ]


def test_summary_is_mean_median_and_students_interval():
    key, listener = key_and_ratings()
    first, second = listener("a"), listener("b")
    second.scores.update({name: 80.0 for name in second.scores if key.stimuli[name].condition == "opus@6"})
    summary = summarise_ratings([first, second], key)
    assert [score.condition for score in summary] == ["reference", "opus@6", "anchor 7 kHz", "anchor 3.5 kHz"]
    opus = summary[1]
    assert (opus.estimate.mean, opus.median, opus.quartiles, opus.estimate.count) == (75.0, 75.0, (70.0, 80.0), 20)
    s = np.std([70] * 10 + [80] * 10, ddof=1)
    assert opus.estimate.half_width == pytest.approx(2.093024 * s / np.sqrt(20), rel=1e-5)  # t(0.975, 19)
    assert "| opus@6 " in ratings_table(summary)
    assert summarise_ratings([first], key, "music")[1].estimate.count == 5
    assert len(ratings_csv([first, second], key).splitlines()) == 81
    with pytest.raises(AudioError, match="no ratings"):
        summarise_ratings([], key)


def test_plot_of_ratings_is_png():
    pytest.importorskip("matplotlib", reason="needs streamcodec[eval]")
    key, listener = key_and_ratings()
    assert ratings_plot(summarise_ratings([listener("a")], key)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "change",
    [{"test": "other"}, {"listener": " "}, {"listener": 5}, {"listener": "x" * 201}, {"scores": {}}, {"scores": []},
     {"scores": {"a": 101}}, {"scores": {"a": True}}, {"scores": {"a": "50"}}, {"scores": {"a": float("nan")}},
     {"scores": {"a": 5, "b": 5}}],
)  # fmt: skip
def test_ratings_that_are_not_whole_are_refused(change):
    key = Key("t", {"a": Stimulus("opus@6", "c", "speech")})
    good = {"test": "t", "listener": "ann", "scores": {"a": 50}}
    assert parse_ratings(json.dumps(good), key) == Ratings("ann", {"a": 50.0})
    for text in (json.dumps(good | change), json.dumps(good)[:-1], "[]", "[" * 100_000):
        with pytest.raises(AudioError):
            parse_ratings(text, key)


@pytest.mark.parametrize(
    "name", ["a\x00b", "a\tb", "\udcff", "a\x9bJ", "a\u2028b", "eve\u202egnp.exe", "\x7f", "a\r\nSet-Cookie: b"]
)
def test_a_name_that_steers_a_terminal_or_cannot_be_written_is_refused_in_printable_words(name):
    key = Key("t", {"a": Stimulus("opus@6", "c", "speech")})
    with pytest.raises(AudioError, match="printable characters") as refused:
        parse_ratings(json.dumps({"test": "t", "listener": name, "scores": {"a": 50}}), key)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["Zoë Ångström", "田中\u3000太郎", "می\u200cخواهم", "O'Neil, J. <3", " ann "])
def test_names_of_people_are_kept(name):
    key = Key("t", {"a": Stimulus("opus@6", "c", "speech")})
    text = json.dumps({"test": "t", "listener": name, "scores": {"a": 50}})
    assert parse_ratings(text, key).listener == name.strip()


def test_a_score_that_is_a_long_or_unwritable_text_is_named_in_short():
    key = Key("t", {"a": Stimulus("opus@6", "c", "speech")})
    for value in ("x" * 900_000, "\ud800", 10**300):
        with pytest.raises(AudioError, match="must be a number from 0 to 100") as refused:
            parse_ratings(json.dumps({"test": "t", "listener": "ann", "scores": {"a": value}}), key)
        assert len(str(refused.value).encode()) < 200


def test_ratings_are_kept_whole_or_not_at_all(tmp_path, monkeypatch):
    key = Key("t", {"a": Stimulus("opus@6", "c", "speech")})
    good = json.dumps({"test": "t", "listener": "ann", "scores": {"a": 50}})

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            results.store_ratings(tmp_path, good, key)
    assert list((tmp_path / "results").iterdir()) == []
    monkeypatch.setattr(results, "MOST_RESULTS", 2)
    for _ in range(2):
        results.store_ratings(tmp_path, good, key)
    with pytest.raises(AudioError, match="2 listeners have rated already"):
        results.store_ratings(tmp_path, good, key)
    assert len(list((tmp_path / "results").iterdir())) == 2


@pytest.fixture
def served(quiet_codec, tmp_path):
    folder = tmp_path / "test"
    prepare.write_test(folder, clips(), [Spec.parse("opus@6")], seed=1)
    server = make_server(folder, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def request(url, data=None, headers=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_server_gives_the_page_and_nothing_else_and_keeps_whole_ratings(served):
    folder, url = served
    key = read_key(folder)
    assert request(url + "/")[1] == (folder / "index.html").read_bytes()
    for path in ("/key.json", "/../key.json", "/results", "/results/", "/.."):
        assert request(url + path)[0] == 404
    good = json.dumps({"test": key.test, "listener": "ann", "scores": dict.fromkeys(key.stimuli, 50)}).encode()
    assert request(url + "/results", good) == (200, b"kept")
    assert request(url + "/results", good[:-5])[0] == 400
    assert request(url + "/results", good, {"Content-Length": "1000001"})[0] == 400
    assert request(url + "/elsewhere", good)[0] == 400
    assert request(url + "/results", good, {"Origin": "http://evil.example"})[0] == 403
    assert request(url + "/", headers={"Host": "evil.example"})[0] == 403
    listeners, notes = read_results(folder, key)
    assert ([ratings.listener for ratings in listeners], notes) == (["ann"], [])
    with pytest.raises(DeviceError, match="choose another with --port"):
        make_server(folder, int(url.rpartition(":")[2]))


def test_idle_connections_keep_no_listener_out(served, monkeypatch):
    _, url = served
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 4)
    before = threading.active_count()
    host, port = url.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port)), timeout=10) for _ in range(20)]
    assert request(url + "/")[0] == 200
    assert threading.active_count() - before <= 5
    assert idle[0].recv(1) == b""  # the oldest was closed
    for connection in idle:
        connection.close()


def test_a_length_that_is_no_number_and_a_full_disk_are_answered(served, monkeypatch):
    folder, url = served
    key = read_key(folder)
    good = json.dumps({"test": key.test, "listener": "ann", "scores": dict.fromkeys(key.stimuli, 50)}).encode()
    for length in ("\xb2", "", "-1", "9" * 5000, "0x10"):
        assert request(url + "/results", good, {"Content-Length": length})[0] == 400

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(server_module, "store_ratings", full)
    status, said = request(url + "/results", good)
    assert status == 507
    assert b"No space left" in said


def test_listener_goes_through_the_page_with_the_keyboard_alone(served, tmp_path):
    if find_chromium() is None:
        pytest.skip("needs Chromium on the PATH")
    folder, url = served
    with Browser(tmp_path / "profile") as browser:
        browser.open(url)
        browser.press("Tab")
        for character in "ann":
            browser.press(character)
        shots = os.environ.get("SHOTS")
        if shots:
            browser.screenshot(Path(shots) / "intro.png")
        browser.press("Enter")
        for clip_number in (1, 2):
            browser.wait(f"document.getElementById('title').textContent === 'Clip {clip_number} of 2' && ready")
            assert browser.value("player.chosen") == "reference"
            assert browser.value("document.getElementById('next').disabled")
            for i in range(4):
                browser.press(str(i + 1))
                assert browser.value(f"player.chosen === ids[{i}]")
                browser.press("End")
                browser.press("ArrowLeft", 10 * i)
            if shots:
                browser.screenshot(Path(shots) / f"trial{clip_number}.png")
            # What is heard is the chosen version: its gain is open, all others are shut.
            browser.press("r")
            browser.wait("player.voices.get('reference').gain.gain.value > 0.9")
            assert browser.value("[...player.voices.values()].filter((v) => v.gain.gain.value > 0.1).length") == 1
            assert not browser.value("document.getElementById('next').disabled")
            browser.value("document.getElementById('title').focus()")
            browser.press(" ")
            browser.wait("player.context.state === 'suspended'")
            browser.press("Enter")
        browser.wait("document.getElementById('outcome').textContent.startsWith('Your ratings have arrived')")
        if shots:
            browser.screenshot(Path(shots) / "end.png")
        assert browser.errors == []
    (ratings,), notes = read_results(folder, read_key(folder))
    assert (ratings.listener, notes) == ("ann", [])
    assert sorted(ratings.scores.values()) == sorted([100, 90, 80, 70] * 2)


def test_commands_prepare_and_analyse(quiet_codec, tmp_path):
    pytest.importorskip("matplotlib", reason="needs streamcodec[eval]")
    soundfile.write(tmp_path / "a.wav", noise(6.0), RATE_HZ)
    run = lambda *arguments: CliRunner().invoke(listen_cli.command, [str(a) for a in arguments], catch_exceptions=False)  # noqa: E731
    folder = tmp_path / "test"
    assert run("prepare", folder, tmp_path / "a.wav", "--codecs", "opus@6", "--clips", 1).exit_code == 0
    key = read_key(folder)
    scores = {name: 100 if s.condition == "reference" else 40 for name, s in key.stimuli.items()}
    for listener in ("ann", "ben"):
        (folder / "results" / f"{listener}.json").write_text(
            json.dumps({"test": key.test, "listener": listener, "scores": scores})
        )
    (folder / "results" / "torn.json").write_text("{")
    result = run("analyse", folder, "--plot", tmp_path / "p.png", "--csv", tmp_path / "r.csv", "--by-category")
    assert result.exit_code == 0
    assert "2 of 2 listeners" in result.stdout
    assert "torn.json left out" in result.stderr
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 9
    with pytest.raises(AudioError, match="holds no listening test"):
        run("analyse", tmp_path)
