"""What apt-get leaves is taken over, whole or not at all."""

import sys
from pathlib import Path

import pytest

from streamcodec.errors import CorpusError
from streamcodec.training.corpus.download import fetch_package

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script on PATH")


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for apt-get that notes its arguments; returns the script."""
    script = tmp_path / "bin" / "apt-get"
    script.parent.mkdir()
    monkeypatch.setenv("PATH", f"{script.parent}:/bin:/usr/bin")
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho sound > "${{3}}_4%3a22_all.deb"\n')
    script.chmod(0o755)
    return script


def test_package_is_downloaded_once_and_kept(tmp_path: Path, apt: Path) -> None:
    debs = tmp_path / "debs"
    for _ in range(2):
        deb = fetch_package("kajongg", debs)
        assert deb == debs / "kajongg_4%3a22_all.deb"
        assert deb.read_text() == "sound\n"
    assert [path.name for path in debs.iterdir()] == [deb.name]
    assert (tmp_path / "calls").read_text() == "-q download kajongg\n"


def test_download_that_breaks_off_leaves_nothing(tmp_path: Path, apt: Path) -> None:
    apt.write_text(apt.read_text() + "exit 7\n")
    with pytest.raises(CorpusError, match=r"could not download kajongg \(exit status 7\); try apt-get update"):
        fetch_package("kajongg", tmp_path / "debs")
    assert list((tmp_path / "debs").iterdir()) == []
