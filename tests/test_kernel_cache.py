"""Compiled code is kept where the user, and nobody else, may write; without it, or with a bad one, all still runs."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import stat
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import numba
import pytest
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher

import streamcodec
import streamcodec_kernels
from streamcodec_kernels import _cache

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setattr(_cache._settings, "CACHE_DIR", "")
    monkeypatch.setattr(_cache, "_has_warned", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    _cache.cache_folder.cache_clear()
    yield
    _cache.cache_folder.cache_clear()


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    return tmp_path / "home"


def _twice(x: int) -> int:
    return 2 * x


def twice(hits: int, misses: int) -> None:
    """Compile and run in what might be another process; how often the code was there, and how often not."""
    kernel = _cache.cached_jit(_twice)
    assert kernel(21) == 42
    assert (sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())) == (hits, misses)


def kept() -> Path:
    """The one file of compiled code; nothing else is in the folder."""
    (path,) = _cache.cache_folder().iterdir()
    return path


def test_numbas_own_setting_comes_first(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(_cache._settings, "CACHE_DIR", str(tmp_path / "mine"))
    assert _cache.cache_folder().parent == tmp_path / "mine"


def test_a_home_that_cannot_be_written_gives_way_to_the_temporary_folder(home, tmp_path) -> None:
    home.write_text("a file")
    folder = _cache.cache_folder()
    assert folder.is_relative_to(tmp_path / "temporary")
    if sys.platform != "win32":
        assert folder.stat().st_mode & 0o077 == 0


def test_a_setting_that_cannot_be_written_gives_way_to_the_home_and_is_named(
    home, monkeypatch, tmp_path, caplog
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(_cache._settings, "CACHE_DIR", str(tmp_path / "file" / "cache"))
    twice(0, 1)
    assert kept().is_relative_to(home)
    (record,) = caplog.records
    assert str(tmp_path / "file" / "cache") in record.getMessage()


@pytest.mark.parametrize("home", ["", "relative", None], indirect=False)
def test_without_a_home_the_temporary_folder_is_used(home, monkeypatch, tmp_path) -> None:
    def stand_in() -> Path:
        if home is None:
            raise RuntimeError("Could not determine home directory.")
        return Path(home)

    monkeypatch.setattr(Path, "home", stand_in)
    monkeypatch.chdir(tmp_path)
    assert _cache.cache_folder().is_relative_to(tmp_path / "temporary")


@posix
def test_a_user_without_a_name_has_a_folder(monkeypatch, tmp_path) -> None:
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    import pwd

    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert _cache.cache_folder().is_relative_to(tmp_path / "temporary")


@posix
def test_a_folder_that_others_can_write_is_not_trusted(home) -> None:
    first = _cache.cache_folder()
    for mode in (0o777, 0o720, 0o702):
        os.chmod(first, mode)
        _cache.cache_folder.cache_clear()
        assert _cache.cache_folder() != first


@posix
def test_a_folder_within_one_that_others_can_write_is_not_trusted(home) -> None:
    first = _cache.cache_folder()
    for above in (home, home / ".cache", first.parent):
        os.chmod(above, 0o777)
        _cache.cache_folder.cache_clear()
        assert _cache.cache_folder() != first
        os.chmod(above, 0o777 | stat.S_ISVTX)  # as /tmp: others cannot move what is not theirs
        _cache.cache_folder.cache_clear()
        assert _cache.cache_folder() == first
        os.chmod(above, 0o755)


@posix
@pytest.mark.skipif(sys.platform == "win32" or os.getuid() != 0, reason="only root can give folders away")
@pytest.mark.parametrize("which", ["kernels", "above", "link"])
def test_what_belongs_to_another_user_is_not_trusted(which, home, tmp_path) -> None:
    first = _cache.cache_folder()
    if which == "link":
        first.parent.rename(tmp_path / "moved")
        first.parent.symlink_to(tmp_path / "moved")
    os.chown({"kernels": first}.get(which, first.parent), 12345, 12345, follow_symlinks=False)
    _cache.cache_folder.cache_clear()
    assert _cache.cache_folder().is_relative_to(tmp_path / "temporary")


@posix
def test_a_link_of_the_user_is_followed_to_a_folder_that_is_safe(home, tmp_path) -> None:
    (tmp_path / "large").mkdir(mode=0o700)
    home.mkdir()
    (home / ".cache").symlink_to(tmp_path / "large")
    assert _cache.cache_folder().is_relative_to(tmp_path / "large")
    os.chmod(tmp_path / "large", 0o777)
    _cache.cache_folder.cache_clear()
    assert _cache.cache_folder().is_relative_to(tmp_path / "temporary")


@posix
def test_links_in_a_circle_are_no_folder(home, tmp_path) -> None:
    home.symlink_to(tmp_path / "round")
    (tmp_path / "round").symlink_to(home)
    assert _cache.cache_folder().is_relative_to(tmp_path / "temporary")


@posix
def test_folders_are_the_users_alone_whatever_the_umask(home) -> None:
    before = os.umask(0)
    try:
        twice(0, 1)
    finally:
        os.umask(before)
    twice(1, 0)
    for path in (kept(), *kept().relative_to(home.parent).parents):
        assert (home.parent / path).stat().st_mode & 0o022 == 0


def test_without_any_place_to_write_kernels_are_compiled_in_memory(monkeypatch, caplog) -> None:
    monkeypatch.setattr(_cache, "_candidates", lambda: iter(()))
    assert _cache.cache_folder() is None
    twice(0, 1)
    twice(0, 1)
    (record,) = caplog.records
    assert "NUMBA_CACHE_DIR" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_without_a_temporary_folder_kernels_are_compiled_in_memory(home, monkeypatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    home.write_text("a file")
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert _cache.cache_folder() is None
    twice(0, 1)


def test_without_source_files_nothing_is_kept(home, monkeypatch) -> None:
    monkeypatch.setattr(_cache, "__file__", str(home / "kernels.zip" / "_cache.py"))
    assert _cache.cache_folder() is None


def test_a_cached_kernel_leaves_numbas_setting_alone(home, tmp_path) -> None:
    assert _cache.cached_jit(_twice)(21) == 42
    assert _cache._settings.CACHE_DIR == ""
    assert list(tmp_path.glob("home/**/*.bin"))


def test_what_was_compiled_once_is_loaded(home, caplog) -> None:
    twice(0, 1)
    twice(1, 0)
    assert not caplog.records


def whole_with(change) -> bytes:
    """A file that is whole, but holds something else."""
    payload = change(pickle.loads(kept().read_bytes()[32:]))
    return _cache.sha256(payload).digest() + payload


DAMAGE = {
    "empty": lambda content: b"",
    "short": lambda content: content[:20],
    "truncated": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "one bit of object code": lambda content: content[:-2000] + bytes([content[-2000] ^ 1]) + content[-1999:],
    "zeros": lambda content: bytes(len(content)),
    "not a pickle": lambda content: _cache.sha256(b"nonsense").digest() + b"nonsense",
    "a class that is not there": lambda content: whole_with(lambda fields: b"cnumba.gone\nGone\n."),
    "too few fields": lambda content: whole_with(lambda fields: pickle.dumps(fields[:3])),
    "another object": lambda content: whole_with(lambda fields: pickle.dumps(None)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_compiled_anew_and_replaced(damage, home, caplog) -> None:
    twice(0, 1)
    kept().write_bytes(damage(kept().read_bytes()))
    twice(0, 1)
    twice(1, 0)
    assert not caplog.records


@posix
def test_a_file_that_others_can_write_is_replaced(home) -> None:
    twice(0, 1)
    os.chmod(kept(), 0o666)
    twice(0, 1)
    assert kept().stat().st_mode & 0o022 == 0
    twice(1, 0)


def test_a_folder_in_the_place_of_a_file_is_left_and_said(home, caplog) -> None:
    twice(0, 1)
    path = kept()
    path.unlink()
    (path / "full").mkdir(parents=True)
    twice(0, 1)
    assert kept() == path
    assert len(caplog.records) == 1


@pytest.mark.parametrize("other", ["numba", "python", "llvmlite"])
def test_another_versions_code_is_not_loaded(other, home, monkeypatch) -> None:
    twice(0, 1)
    if other == "python":
        monkeypatch.setattr(sys, "version", "4.0")
    else:
        monkeypatch.setattr({"numba": numba, "llvmlite": _cache.llvmlite}[other], "__version__", "99")
    _cache.cache_folder.cache_clear()
    twice(0, 1)
    assert len(list(home.rglob("*.bin"))) == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_disk_that_fills_while_writing_leaves_no_file_and_one_line(number, home, monkeypatch, caplog) -> None:
    def full(*arguments, **keywords):
        raise OSError(number, os.strerror(number))

    assert _cache.cache_folder()
    for name in ("os.fdopen", "os.replace", "tempfile.mkstemp"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            twice(0, 1)
        assert not [path for path in home.rglob("*") if path.is_file()]
    (record,) = caplog.records
    assert os.strerror(number) in record.getMessage()
    twice(0, 1)
    twice(1, 0)


def test_a_folder_removed_meanwhile_stops_nothing(home, caplog) -> None:
    _cache.cache_folder().rmdir()
    twice(0, 1)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING


def test_processes_that_write_at_once_all_end_well(home) -> None:
    program = f"""
import tempfile
from importlib import import_module
from pathlib import Path
Path.home = lambda: Path({str(home)!r})
from streamcodec_kernels import _cache
_cache._settings.CACHE_DIR = ""
def thrice(x): return 3 * x
assert _cache.cached_jit(thrice)(14) == 42
"""
    both = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=300)[1] == ""
        assert process.returncode == 0
    assert len(list(home.rglob("*.bin"))) == 1
    assert not [path for path in home.rglob("*") if path.is_file() and path.suffix != ".bin"]


@pytest.mark.parametrize("package", [streamcodec, streamcodec_kernels], ids=lambda package: package.__name__)
def test_every_kernel_is_kept_by_this_cache_alone(package) -> None:
    sources = list(Path(package.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    assert not [path for path in sources if "cache=True" in path.read_text("utf8")]


def test_every_compiled_function_has_this_cache_or_none() -> None:
    paths = sorted(Path(streamcodec_kernels.__file__).parent.rglob("_numba.py"))
    modules = [import_module(f"streamcodec_kernels.{path.parent.name}._numba") for path in paths]
    functions = [value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)]
    assert {type(function._cache) for function in functions} == {NullCache, _cache._Kept}
