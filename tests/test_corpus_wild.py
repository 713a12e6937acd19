"""A corpus from what lies about: bad archives, names in any encoding, flat folders, two runs at once."""

import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from corpus_audio import folder_of_voices, noise, save, voice
from test_corpus_build import build, make_deb, needs_dpkg

from streamcodec.cli.corpus import command
from streamcodec.errors import CorpusError, FolderInUseError
from streamcodec.locks import LOCK, folder_in_use
from streamcodec.training.corpus.archive import deb_members, folder_members, shown
from streamcodec.training.corpus.build import build_package, prepare_out
from streamcodec.training.corpus.catalogue import Package, Rule
from streamcodec.training.corpus.index import write_index
from streamcodec.training.corpus.reader import Corpus
from streamcodec.training.sampler import CropSampler

HOLD = """
import sys, pathlib, streamcodec.locks
with streamcodec.locks.folder_in_use(pathlib.Path(sys.argv[1])):
    print(flush=True)
    input()
"""


def zip_bytes(path, change=lambda data: data, name="music/y.ogg"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, save(path.with_suffix(".ogg"), noise(2)).read_bytes())
    return change(path.read_bytes())


def damaged_member(data):
    at = data.index(b"music/y.ogg") + 40
    return data[:at] + bytes(64) + data[at + 64 :]


def unknown_method(data):
    at = data.rindex(b"PK\x01\x02") + 10
    return data[:at] + b"\x63\x00" + data[at + 2 :]


@needs_dpkg
def test_archives_that_cannot_be_read_are_named_and_the_rest_is_built(tmp_path):
    deb = make_deb(
        tmp_path,
        "demo",
        {
            "usr/a-empty.zip": b"",
            "usr/b-text.pk3": b"<html>not found</html>",
            "usr/c-cut.zip": zip_bytes(tmp_path / "c.zip", lambda data: data[: len(data) // 2]),
            "usr/d-member.zip": zip_bytes(tmp_path / "d.zip", damaged_member),
            "usr/e-method.zip": zip_bytes(tmp_path / "e.zip", unknown_method),
            "usr/f-good.zip": zip_bytes(tmp_path / "f.zip"),
            "usr/voice.wav": voice(1),
        },
    )
    rules = (Rule(re.compile(r"!/music/"), "music", "demo/music", "MIT"), Rule(re.compile("voice"), "speech", "d", ""))
    prepare_out(tmp_path / "out")
    build_package(tmp_path / "out", Package("demo", "MIT", rules), deb)
    index = write_index(tmp_path / "out")
    assert {item["path"] for item in index["items"]} == {"usr/f-good.zip!/music/y.ogg", "usr/voice.wav"}
    assert {path: why.split(":")[0] for _, path, why in index["dropped"]} == {
        "usr/a-empty.zip": "unreadable",
        "usr/b-text.pk3": "unreadable",
        "usr/c-cut.zip": "unreadable",
        "usr/d-member.zip!/music/y.ogg": "unreadable",
        "usr/e-method.zip!/music/y.ogg": "unreadable",
    }


@needs_dpkg
def test_one_damaged_package_does_not_stop_the_others_and_is_tried_again(tmp_path):
    files = {f"usr/share/kajongg/voices/{who}/a.wav": voice(n) for n, who in enumerate(("male1", "male2", "female1"))}
    make_deb(tmp_path, "kajongg", files)
    (tmp_path / "gcin-voice_1_all.deb").write_bytes(b"!<arch>\nnonsense")
    words = ["build", "--out", str(tmp_path / "out"), "--download-dir", str(tmp_path)]
    words += ["--packages", "gcin-voice,kajongg"]
    for _ in range(2):
        result = CliRunner().invoke(command, words)
        assert isinstance(result.exception, CorpusError)
        assert "ready without these" in str(result.exception)
        assert "gcin-voice_1_all.deb is damaged" in str(result.exception)
        assert {item.source for item in Corpus.open(tmp_path / "out").items} == {"kajongg"}


@needs_dpkg
def test_without_a_single_package_the_first_reason_is_said(tmp_path):
    for name in ("gcin-voice", "kajongg"):
        (tmp_path / f"{name}_1_all.deb").write_bytes(b"nonsense")
    words = ["build", "--out", str(tmp_path / "out"), "--download-dir", str(tmp_path)]
    result = CliRunner().invoke(command, [*words, "--packages", "gcin-voice,kajongg"])
    assert isinstance(result.exception, CorpusError)
    assert re.search(r"no package could be built: .* is damaged .*\(and 1 more", str(result.exception))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes names in any encoding")
@needs_dpkg
def test_names_in_any_encoding_are_built_and_can_be_printed(tmp_path):
    names = [b"caf\xe9.wav", b"a\nb.wav", "音声.wav".encode(), b"\x1b[2J.wav"]
    tree = tmp_path / "in"
    tree.mkdir()
    for number, name in enumerate(names):
        os.rename(os.fsencode(save(tmp_path / "x.wav", voice(number))), os.path.join(os.fsencode(tree), name))
    paths = [path for path, _ in folder_members(tree, lambda _path: True)]
    assert sorted(paths) == sorted(["caf\\xe9.wav", "a\\nb.wav", "音声.wav", "\\x1b[2J.wav"])
    index = build(tmp_path / "out", tree)
    assert {item["path"] for item in index["items"]} == set(paths)
    (tree / "a\nb.wav").unlink()  # dpkg-deb itself refuses it
    deb = tmp_path / "demo.deb"
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        "Package: demo\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@b.c>\nDescription: test\n"
    )
    subprocess.run(["dpkg-deb", "-Znone", "-b", str(tree), str(deb)], check=True, capture_output=True)
    assert {path for path, _ in deb_members(deb, lambda _path: True)} >= set(paths) - {"a\\nb.wav"}


def test_shown_names_lose_nothing_that_can_be_printed():
    assert shown("Ünï 音/x\u3000y.wav") == "Ünï 音/x\u3000y.wav"
    assert shown("\ud800\udcff\x00\x7f\u202e") == "\\ud800\\xff\\x00\\x7f\\u202e"


@pytest.mark.parametrize("below", ["", "wavs", "a/b"])
def test_recordings_of_one_folder_are_split_by_file_and_can_be_trained_on(tmp_path, below):
    for number in range(5):
        save(tmp_path / "in" / below / f"{number}.wav", voice(number, pitch_hz=120))
    (tmp_path / "in" / "metadata.csv").write_text("0|hello")
    index = build(tmp_path / "out", tmp_path / "in")
    assert len({item["group"] for item in index["items"]}) == 5
    corpus = Corpus.open(tmp_path / "out")
    for split in ("train", "validation"):
        assert np.abs(CropSampler(corpus, split, 4800, 2, 0).batch(0)).max() > 0


def test_a_folder_stays_split_as_it_began(tmp_path):
    root = folder_of_voices(tmp_path / "few", speakers=2, files=2)
    first = build(tmp_path / "out", root)
    assert len(first["groups"]) == 4
    folder_of_voices(root, speakers=4, files=2)
    second = build(tmp_path / "out", root)
    assert len(second["groups"]) == 8
    assert first["groups"].items() <= second["groups"].items()
    assert len(build(tmp_path / "other", root)["groups"]) == 4


def test_too_few_recordings_are_told_how_many_are_needed(tmp_path):
    save(tmp_path / "in" / "only.wav", voice(1))
    build(tmp_path / "out", tmp_path / "in")
    with pytest.raises(CorpusError, match=r"'validation'.*at least three.*--from-folder"):
        CropSampler(Corpus.open(tmp_path / "out"), "validation", 4800, 2, 0)


def test_a_second_run_in_the_folder_says_so_and_changes_nothing(tmp_path):
    root, out = folder_of_voices(tmp_path / "in", speakers=3, files=1), tmp_path / "out"
    build(out, root)
    before = (out / "index.json").read_bytes()
    words = ["build", "--out", str(out), "--from-folder", str(root), "--category", "speech"]
    with subprocess.Popen([sys.executable, "-c", HOLD, out], stdin=-1, stdout=-1, text=True) as other:
        other.stdout.readline()
        result = CliRunner().invoke(command, words)
        assert isinstance(result.exception, FolderInUseError)
        assert str(result.exception) == (
            f"another run (process {other.pid}) is working in {out}; wait for it to end or choose another folder"
        )
        other.kill()
    assert (out / LOCK).exists()  # left by the killed run, and no obstacle
    assert (out / "index.json").read_bytes() == before
    assert CliRunner().invoke(command, words).exit_code == 0
    assert not (out / LOCK).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of folders")
def test_a_folder_that_cannot_be_locked_is_worked_in_all_the_same(tmp_path, monkeypatch):
    def refused(*_arguments):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        with folder_in_use(tmp_path):
            pass
    with folder_in_use(tmp_path), pytest.raises(FolderInUseError), folder_in_use(tmp_path):
        pass
