"""Compiled code is kept where the user, and nobody else, may write."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from streamcodec_kernels import _cache

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setattr(_cache._settings, "CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    _cache.cache_folder.cache_clear()
    yield
    _cache.cache_folder.cache_clear()


def test_numbas_own_setting_comes_first(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(_cache._settings, "CACHE_DIR", str(tmp_path / "mine"))
    assert _cache.cache_folder().parent == tmp_path / "mine"


def test_a_home_that_cannot_be_written_gives_way_to_the_temporary_folder(monkeypatch, tmp_path) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    folder = _cache.cache_folder()
    assert folder.is_relative_to(tmp_path / "temporary")
    if sys.platform != "win32":
        assert folder.stat().st_mode & 0o077 == 0


@posix
def test_a_folder_that_others_can_write_is_not_trusted(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    first = _cache.cache_folder()
    os.chmod(first, 0o777)
    _cache.cache_folder.cache_clear()
    assert _cache.cache_folder() != first


def test_without_any_place_to_write_kernels_are_compiled_in_memory(monkeypatch) -> None:
    monkeypatch.setattr(_cache, "_candidates", lambda: iter(()))
    assert _cache.cache_folder() is None
    assert _cache.cached_jit(_twice)(21) == 42


def _twice(x: int) -> int:
    return 2 * x


def test_a_cached_kernel_leaves_numbas_setting_alone(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert _cache.cached_jit(_twice)(21) == 42
    assert _cache._settings.CACHE_DIR == ""
    assert list(tmp_path.glob("home/**/*.nbi"))
