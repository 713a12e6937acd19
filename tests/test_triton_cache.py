"""Triton keeps its kernels where the user may write and nobody else, so a user without a home can launch them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from streamcodec_kernels import _cache
from streamcodec_kernels._triton_cache import choose_triton_cache

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    for name in ("TRITON_CACHE_DIR", "TRITON_HOME", "TRITON_CACHE_MANAGER"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(_cache._settings, "CACHE_DIR", "")
    monkeypatch.setattr(_cache, "_has_warned", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    _cache.cache_folder.cache_clear()
    yield
    _cache.cache_folder.cache_clear()


def chosen() -> str:
    choose_triton_cache()
    return os.environ["TRITON_CACHE_DIR"]


def test_tritons_own_folder_stays_where_it_can_be_used(monkeypatch, tmp_path) -> None:
    assert chosen() == ""
    monkeypatch.setenv("TRITON_HOME", str(tmp_path / "other"))
    assert chosen() == ""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "mine"))
    assert chosen() == str(tmp_path / "mine")


@posix
def test_a_home_that_cannot_be_written_gives_way_to_our_folder(tmp_path) -> None:
    (tmp_path / "home").write_text("a file")
    folder = Path(chosen())
    assert folder.parent == _cache.cache_folder()
    assert folder.is_relative_to(tmp_path / "temporary")


@posix
def test_without_a_home_nothing_is_made_in_the_working_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it is where nothing says what the home is
    monkeypatch.chdir(tmp_path / "temporary")
    assert Path(chosen()).is_absolute()
    assert not (tmp_path / "temporary" / "~").exists()


@posix
def test_a_folder_that_others_can_write_is_not_trusted_and_named(monkeypatch, tmp_path, caplog) -> None:
    (tmp_path / "shared").mkdir()
    os.chmod(tmp_path / "shared", 0o777)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "shared"))
    assert Path(chosen()).parent == _cache.cache_folder()
    (record,) = caplog.records
    assert str(tmp_path / "shared") in record.getMessage()


@posix
def test_without_any_folder_a_temporary_one_lasts_as_long_as_the_process(tmp_path) -> None:
    program = """
import os
from streamcodec_kernels import _cache, _triton_cache
_cache._candidates = lambda: iter(())
_triton_cache.choose_triton_cache()
os.makedirs(os.environ["TRITON_CACHE_DIR"])
print(os.environ["TRITON_CACHE_DIR"])
"""
    environment = os.environ | {"HOME": "/dev/null/home", "TMPDIR": str(tmp_path / "temporary")}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert Path(ran.stdout.strip()).is_relative_to(tmp_path / "temporary")
    assert not list((tmp_path / "temporary").iterdir())
    assert len(ran.stderr.splitlines()) == 1


def test_a_cache_that_the_user_programmed_is_left_alone(monkeypatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_MANAGER", "mine:Manager")
    monkeypatch.setenv("HOME", "/dev/null/home")
    assert chosen() == ""


def test_triton_reads_the_choice(monkeypatch) -> None:
    triton = pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setenv("HOME", "/dev/null/home")
    folder = chosen()
    assert folder
    knobs = getattr(triton, "knobs", None)
    if knobs is None:
        pytest.skip("this Triton has no settings to ask")
    assert knobs.cache.dir == folder
