"""The whole way from packages and folders to an index."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from click.testing import CliRunner
from corpus_audio import folder_of_voices, noise, save, voice

from streamcodec.cli import corpus as corpus_verb
from streamcodec.cli.corpus import command
from streamcodec.errors import CorpusError
from streamcodec.training.corpus import download
from streamcodec.training.corpus.archive import deb_members
from streamcodec.training.corpus.build import Folder, build_folder, build_package, prepare_out
from streamcodec.training.corpus.catalogue import CATEGORIES, Package, Rule, choose_packages, held_out, packages
from streamcodec.training.corpus.index import write_index
from streamcodec.training.corpus.reader import Corpus
from streamcodec.training.corpus.split import assign, planned

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not on this system")


def build(out, root, category="speech", **options):
    prepare_out(out)
    build_folder(out, Folder(root, category, "CC0-1.0"), shard_s=5, **options)
    return write_index(out)


def make_deb(folder, name, files):
    """A package with `files`, {path: samples or bytes}."""
    tree = folder / "tree"
    for path, content in files.items():
        target = tree / path
        if isinstance(content, bytes):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        else:
            save(target, content)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@b.c>\nDescription: test\n"
    )
    deb = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "-Znone", "-b", str(tree), str(deb)], check=True, capture_output=True)
    return deb


def test_no_speaker_is_on_two_sides_and_every_split_has_speech(tmp_path):
    index = build(tmp_path / "out", folder_of_voices(tmp_path / "in"))
    splits = {}
    for item in index["items"]:
        splits.setdefault(item["group"], set()).add(item["split"])
    assert all(len(split) == 1 for split in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}


def test_bandwidth_licence_and_places_are_in_the_index(tmp_path):
    index = build(tmp_path / "out", folder_of_voices(tmp_path / "in"))
    for item in index["items"]:
        assert item["licence"] == "CC0-1.0"
        assert (item["eff_bw_hz"] <= 8500) == item["group"].endswith("/s4")
    by_shard = {}
    for item in index["items"]:
        by_shard.setdefault(item["shard"], []).append((item["start"], item["start"] + item["length"]))
    for places in by_shard.values():
        assert all(a[1] <= b[0] for a, b in zip(sorted(places), sorted(places)[1:], strict=False))
    assert str(tmp_path) not in (tmp_path / "out" / "index.json").read_text()


def test_what_is_read_back_is_what_went_in(tmp_path):
    root = folder_of_voices(tmp_path / "in", speakers=3)
    build(tmp_path / "out", root)
    corpus = Corpus.open(tmp_path / "out")
    for item in corpus.items[:3]:
        audio = corpus.audio(item)
        assert audio.dtype == np.float32
        assert len(audio) == item.length
        level_db = 10 * np.log10(np.mean(audio.astype(np.float64) ** 2))
        assert -26 < level_db < -21
    assert len(list((tmp_path / "out" / "cache").glob("*.i16"))) == len({item.shard for item in corpus.items[:3]})
    with pytest.raises(CorpusError, match="outside"):
        corpus.audio(corpus.items[0], 0, corpus.items[0].length + 1)


def test_duplicates_silence_clipping_and_corrupt_files_are_named_and_dropped(tmp_path):
    root = folder_of_voices(tmp_path / "in", speakers=1, files=2)
    shutil.copy(root / "s0" / "0.wav", root / "s0" / "copy.wav")
    save(root / "s0" / "quiet.wav", np.zeros(44_100, np.float32))
    save(root / "s0" / "loud.wav", np.clip(5 * voice(5), -1, 1))
    (root / "s0" / "broken.ogg").write_bytes(b"OggS" + bytes(100))
    (root / "s0" / "empty.flac").write_bytes(b"")
    (root / "s0" / "notes.txt").write_text("not sound")
    index = build(tmp_path / "out", root)
    assert sorted(item["path"] for item in index["items"]) == ["s0/0.wav", "s0/1.wav"]
    reasons = {path: why.split(":")[0] for _, path, why in index["dropped"]}
    assert reasons == {
        "s0/copy.wav": "duplicate",
        "s0/quiet.wav": "silent",
        "s0/loud.wav": "clipped",
        "s0/broken.ogg": "unreadable",
        "s0/empty.flac": "unreadable",
    }


@pytest.mark.parametrize("stop_after", [1, 5, 11])
def test_interrupted_build_gives_the_same_index(tmp_path, stop_after):
    root = folder_of_voices(tmp_path / "in", speakers=4)
    shutil.copy(root / "s0" / "0.wav", root / "s3" / "copy.wav")
    (root / "s1" / "broken.wav").write_bytes(b"RIFF")
    build(tmp_path / "whole", root)
    seen = []

    def interrupt(path, _why, _seconds):
        seen.append(path)
        if len(seen) == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "resumed", root, on_file=interrupt)
    (tmp_path / "resumed" / "shards" / "left.opus.part").write_bytes(b"half")
    build(tmp_path / "resumed", root)
    assert (tmp_path / "whole" / "index.json").read_text() == (tmp_path / "resumed" / "index.json").read_text()


def test_second_build_reads_only_new_files_and_moves_no_speaker(tmp_path):
    root = folder_of_voices(tmp_path / "in", speakers=4, files=1)
    (root / "s0" / "broken.wav").write_bytes(b"RIFF")
    first = build(tmp_path / "out", root)
    save(root / "s9" / "new.wav", voice(77))
    touched = []
    second = build(tmp_path / "out", root, on_file=lambda path, *_: touched.append(path))
    assert touched == ["s9/new.wav"]
    assert first["groups"].items() <= second["groups"].items()
    assert len(second["items"]) == len(first["items"]) + 1


def test_two_folders_of_one_name_are_told_apart(tmp_path):
    build(tmp_path / "out", folder_of_voices(tmp_path / "a" / "wav", speakers=1))
    other = folder_of_voices(tmp_path / "b" / "wav", speakers=1)
    with pytest.raises(CorpusError, match="--name"):
        build_folder(tmp_path / "out", Folder(other, "speech", "CC0-1.0"))


def test_foreign_folder_is_not_built_into(tmp_path):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(CorpusError, match="not empty"):
        prepare_out(tmp_path)


@needs_dpkg
def test_package_goes_through_the_whole_pipeline(tmp_path):
    bank = b"junk" + save(tmp_path / "x.wav", noise(1)).read_bytes() + b"RIFF" + bytes(3)
    archive = tmp_path / "pack.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(save(tmp_path / "y.ogg", noise(2)), "music/y.ogg")
    deb = make_deb(
        tmp_path,
        "demo",
        {
            "usr/voices/ann/1.wav": voice(1),
            "usr/voices/bob/1.ogg": voice(2),
            "usr/voices/robot/1.wav": voice(3),
            "usr/bank.cat": bank,
            "usr/pack.zip": archive.read_bytes(),
            "usr/broken.zip": b"PK nonsense",
        },
    )
    rules = (
        Rule(re.compile("robot"), "exclude", "", ""),
        Rule(re.compile(r"voices/(?P<who>\w+)"), "speech", "demo/{who}", "CC0-1.0"),
        Rule(re.compile(r"\.cat!"), "environment", "demo/effects", "MIT"),
        Rule(re.compile(r"!music/|!/music/"), "music", "demo/music", "MIT"),
    )
    prepare_out(tmp_path / "out")
    build_package(tmp_path / "out", Package("demo", "MIT", rules), deb)
    index = write_index(tmp_path / "out")
    found = {(item["path"], item["category"], item["group"], item["licence"]) for item in index["items"]}
    assert found == {
        ("usr/voices/ann/1.wav", "speech", "demo/ann", "CC0-1.0"),
        ("usr/voices/bob/1.ogg", "speech", "demo/bob", "CC0-1.0"),
        ("usr/bank.cat!/000000004.wav", "environment", "demo/effects", "MIT"),
        ("usr/pack.zip!/music/y.ogg", "music", "demo/music", "MIT"),
    }


@needs_dpkg
def test_damaged_package_is_named(tmp_path):
    (tmp_path / "demo_1_all.deb").write_bytes(b"!<arch>\nnonsense")
    with pytest.raises(CorpusError, match=r"demo_1_all\.deb is damaged"):
        list(deb_members(tmp_path / "demo_1_all.deb", lambda _path: True))


def test_catalogue_is_whole():
    names = [package.name for package in packages()]
    assert len(names) == len(set(names)) == 25
    for package in packages():
        assert package.licence
        assert {rule.category for rule in package.rules} <= {*CATEGORIES, "exclude"}
    kinds = Counter(plan.split for plan in held_out().values())
    assert kinds["test"] >= 4
    assert kinds["validation"] >= 4
    assert all(0 < plan.share <= 1 for plan in held_out().values())


@pytest.mark.parametrize(
    ("package", "path", "group"),
    [
        ("asterisk-core-sounds-es-g722", "usr/share/asterisk/sounds/es_MX_f_Allison/a.g722", "asterisk/allison"),
        ("asterisk-core-sounds-en-g722", "usr/share/asterisk/sounds/en_US_f_Allison/silence/1.g722", None),
        ("tuxpaint-stamps-default", "usr/share/tuxpaint/stamps/animals/frog_desc_el.ogg", "tuxpaint/el"),
        ("tuxpaint-stamps-default", "usr/share/tuxpaint/stamps/animals/frog_desc_es.ogg", None),
        ("klettres-data", "usr/share/klettres/uk/alpha/a.ogg", "kde/uk"),
        ("ktuberling-data", "usr/share/ktuberling/sounds/uk/a.wav", "kde/uk"),
        ("ktuberling-data", "usr/share/ktuberling/sounds/sr@latin/a.wav", None),
        ("warzone2100-music", "usr/music/albums/aftermath_soundtrack/track3_enhanced.opus", "warzone/original"),
        ("hedgewars-data", "usr/share/games/hedgewars/Data/Sounds/voices/Russian_pl/a.ogg", "hedgewars/Russian"),
    ],
)
def test_rules_name_the_speaker_or_album(package, path, group):
    label = choose_packages([package])[0].label(path)
    assert (label.group if label else None) == group


def test_every_category_of_the_catalogue_is_held_out_twice():
    for split in ("validation", "test"):
        mine = {group for group, plan in held_out().items() if plan.split == split}
        speech = mine & {"asterisk/carlo", "kde/uk", "kde/da", "kde/hu", "tuxpaint/da", "hedgewars/British"}
        assert len(speech) >= 2
    assert planned("asterisk/carlo").split == "test"
    assert planned("tuxpaint/be").split == "train"


def test_split_stays_when_groups_are_added():
    groups = [(f"own-x/{n}", "speech", 60.0) for n in range(200)]
    first = assign(groups[:50], {})
    second = assign(groups, first)
    assert first.items() <= second.items()
    share = Counter(second.values())["train"] / len(second)
    assert 0.8 < share < 0.99
    assert {"validation", "test"} <= set(second.values())


def test_lone_speaker_is_trained_on_even_if_the_hash_holds_him_out():
    for n in range(60):
        assert assign([(f"own-x/{n}", "speech", 60.0)], {}) == {f"own-x/{n}": "train"}


def test_unknown_package_is_refused_with_the_known_ones():
    with pytest.raises(CorpusError, match="kajongg"):
        choose_packages(["nonsense"])


def test_download_dir_is_looked_into_first(tmp_path):
    (tmp_path / "kajongg_4%3a22_all.deb").write_bytes(b"x")
    assert download.fetch_package("kajongg", tmp_path).name == "kajongg_4%3a22_all.deb"


def test_system_without_apt_is_told_of_from_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CorpusError, match="--from-folder"):
        download.fetch_package("kajongg", tmp_path)
    with pytest.raises(CorpusError, match="--from-folder"):
        list(deb_members(tmp_path / "kajongg.deb", lambda _path: True))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script on PATH")
def test_failing_apt_is_quoted(tmp_path, monkeypatch):
    fake = tmp_path / "apt-get"
    fake.write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(CorpusError, match=r"Unable to locate package.*--exclude kajongg"):
        download.fetch_package("kajongg", tmp_path / "debs")
    assert list((tmp_path / "debs").iterdir()) == []


@needs_dpkg
def test_truncated_package_is_not_taken_for_whole(tmp_path):
    deb = make_deb(tmp_path, "kajongg", {f"usr/share/kajongg/voices/male1/{n}.wav": voice(n) for n in range(3)})
    prepare_out(tmp_path / "out")
    data = deb.read_bytes()
    for size in range(len(data) // 3, len(data), len(data) // 7):
        deb.write_bytes(data[:size])
        with pytest.raises(CorpusError, match="damaged"):
            build_package(tmp_path / "out", choose_packages(["kajongg"])[0], deb)
    assert list((tmp_path / "out" / "finished").iterdir()) == []


@needs_dpkg
@pytest.mark.parametrize("jobs", [1, 2])
def test_command_builds_reports_and_packs(tmp_path, jobs, monkeypatch):
    pools = []

    class Pool(ProcessPoolExecutor):
        def __init__(self, workers, **options):
            pools.append(workers)
            super().__init__(workers, **options)

    monkeypatch.setattr(corpus_verb, "ProcessPoolExecutor", Pool)
    voices = {f"usr/share/kajongg/voices/{who}/a.wav": voice(n) for n, who in enumerate(("male1", "male2", "female1"))}
    make_deb(tmp_path, "kajongg", {**voices, "usr/share/kajongg/voices/male1/b.wav": b"RIFF"})
    run = CliRunner()
    out = tmp_path / "out"
    words = ["build", "--out", str(out), "--download-dir", str(tmp_path), "--packages", "kajongg", "--jobs", str(jobs)]
    result = run.invoke(command, words)
    assert result.exit_code == 0, result.output
    assert pools == ([] if jobs == 1 else [jobs])
    assert "GPL-2+" in result.output
    assert "usr/share/kajongg/voices/male1/b.wav: unreadable" in result.output
    root = folder_of_voices(tmp_path / "mine", speakers=3, files=1)
    result = run.invoke(command, ["build", "--out", str(out), "--from-folder", str(root), "--category", "speech"])
    assert result.exit_code == 0, result.output
    assert "own audio" in result.output
    result = run.invoke(command, ["info", str(out), "--verbose"])
    assert result.exit_code == 0
    result = run.invoke(command, ["pack", str(out), "--out", str(tmp_path / "small"), "--megabytes", "5"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "small" / "index.json").read_text())["items"]


def test_pack_codes_training_shards_anew_and_leaves_the_others(tmp_path):
    out, small = tmp_path / "out", tmp_path / "small"
    build(out, folder_of_voices(tmp_path / "mine"))
    result = CliRunner().invoke(
        command, ["pack", str(out), "--out", str(small), "--megabytes", "5", "--kbps", "24", "--held-out", "0.1"]
    )
    assert result.exit_code == 0, result.output
    whole, packed = Corpus.open(out), Corpus.open(small)
    assert packed.items
    sizes = json.loads((small / "index.json").read_text())["shards"]
    for shard, entry in sizes.items():
        before, after = (folder / "shards" / shard for folder in (out, small))
        assert entry["bytes"] == after.stat().st_size
        if any(item.split == "train" for item in packed.items if item.shard == shard):
            assert after.stat().st_size < 0.7 * before.stat().st_size
        else:
            assert after.read_bytes() == before.read_bytes()
    for item in packed.select("train"):
        twin = next(other for other in whole.items if (other.group, other.path) == (item.group, item.path))
        assert np.corrcoef(packed.audio(item), whole.audio(twin))[0, 1] > 0.9


def test_command_refuses_half_an_order(tmp_path):
    result = CliRunner().invoke(command, ["build", "--out", str(tmp_path / "o"), "--from-folder", str(tmp_path)])
    assert result.exit_code == 2
    assert "--category" in result.output
