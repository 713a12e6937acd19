"""Read the files in a Debian package, in zip archives and sound banks inside it, and in a folder.

One bad file costs only itself: what cannot be read is yielded with no bytes.  Names are made printable (`shown`), since
a package or a folder may hold names in any encoding.
"""

from __future__ import annotations

import lzma
import struct
import subprocess
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from streamcodec.errors import CorpusError

MAX_MEMBER_BYTES = 1 << 30
"""A larger sound file is not read into memory."""

_BAD_ZIP = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError,
    NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip

Wanted = Callable[[str], bool]


def deb_members(deb: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Path and content of every file of the package `deb` for which `wanted(path)`.

    A file inside a zip archive is called `archive!/path`, a WAV inside a sound bank `bank!/offset.wav`.  A zip archive
    that cannot be opened is yielded itself.  The package is read as a stream; only zip archives touch the disk, in a
    temporary file.

    Raises
    ------
    CorpusError
        dpkg-deb is missing, or the package is damaged.
    """
    try:
        process = subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        raise CorpusError(
            "dpkg-deb is not on this system, packages cannot be unpacked; use --from-folder DIR with your own audio"
        ) from None
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        failure = "the end is missing"
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    if member.isfile():
                        yield from _tar_member(tar, member, wanted)
            while process.stdout.read(1 << 20):
                pass
            if process.wait() == 0:
                return
        except (tarfile.TarError, EOFError, ValueError) as error:
            failure = str(error)
        finally:
            process.kill()
        lines = process.stderr.read().decode(errors="replace").strip().splitlines()
        raise CorpusError(f"{deb.name} is damaged ({(lines or [failure])[0]}); delete it and download it again")


def _tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    path = shown(member.name.removeprefix("./"))
    suffix = Path(path).suffix.lower()
    stream = tar.extractfile(member)
    assert stream is not None
    if suffix in {".zip", ".pk3"}:
        yield from _zip_members(path, stream, wanted)
    elif wanted(path):
        yield path, stream.read() if member.size <= MAX_MEMBER_BYTES else b""
    elif suffix == ".cat" and member.size <= MAX_MEMBER_BYTES:
        for offset, data in riff_chunks(stream.read()):
            name = f"{path}!/{offset:09d}.wav"
            if wanted(name):
                yield name, data


def _zip_members(path: str, stream: IO[bytes], wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with tempfile.TemporaryFile() as spool:
        while block := stream.read(1 << 22):
            spool.write(block)
        try:
            archive = zipfile.ZipFile(spool)
        except _BAD_ZIP:
            yield path, b""
            return
        with archive:
            for info in archive.infolist():
                name = f"{path}!/{shown(info.filename)}"
                if not info.is_dir() and wanted(name):
                    yield name, _zip_member(archive, info)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MAX_MEMBER_BYTES:
        return b""
    try:
        return archive.read(info)
    except _BAD_ZIP:
        return b""


def shown(name: str) -> str:
    r"""`name` with every character that is not printable as an escape, so that it can be written and printed.

    >>> print(shown("caf\udce9/a\n.wav"))
    caf\xe9/a\n.wav
    """
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that was no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def riff_chunks(bank: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each RIFF/WAVE file that lies in `bank`."""
    at = bank.find(b"RIFF")
    while at >= 0:
        end = at + 4
        if bank[at + 8 : at + 12] == b"WAVE":
            (size,) = struct.unpack_from("<I", bank, at + 4)
            if at + 8 + size <= len(bank):
                end = at + 8 + size
                yield at, bank[at:end]
        at = bank.find(b"RIFF", end)


def folder_members(folder: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Path below `folder`, with forward slashes, and content of every file for which `wanted(path)`, sorted."""
    for file in sorted(folder.rglob("*")):
        path = shown(file.relative_to(folder).as_posix())
        try:
            if file.is_file() and wanted(path):
                yield path, file.read_bytes() if file.stat().st_size <= MAX_MEMBER_BYTES else b""
        except OSError:
            yield path, b""
