"""Read the files in a Debian package, in zip files inside it and in sound banks, without writing any of them out."""

from __future__ import annotations

import struct
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from streamcodec.errors import CorpusError

MAX_MEMBER_BYTES = 1 << 30
"""A sound file larger than this is refused rather than read into memory."""

Wanted = Callable[[str], bool]


def deb_members(deb: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Path and content of every file of the package `deb` for which `wanted(path)`.

    A file inside a zip archive is called `archive!/path`, a WAV inside a sound bank `bank!/offset.wav`.

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
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    if member.isfile():
                        yield from _tar_member(tar, member, wanted)
        except tarfile.TarError as error:
            detail = process.stderr.read().decode(errors="replace").strip().splitlines()
            raise CorpusError(
                f"{deb.name} is damaged ({detail[0] if detail else error}); delete it and download it again"
            ) from None
        finally:
            process.kill()


def _tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    path = member.name.removeprefix("./")
    suffix = Path(path).suffix.lower()
    if suffix in {".zip", ".pk3", ".cat"}:
        stream = tar.extractfile(member)
        if stream is not None:
            yield from _inside(path, suffix, stream, wanted)
    elif wanted(path) and member.size <= MAX_MEMBER_BYTES:
        stream = tar.extractfile(member)
        if stream is not None:
            yield path, stream.read()


def _inside(path: str, suffix: str, stream: IO[bytes], wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    if suffix == ".cat":
        for offset, data in riff_chunks(stream.read()):
            name = f"{path}!/{offset:09d}.wav"
            if wanted(name):
                yield name, data
        return
    with tempfile.TemporaryFile() as spool:
        while block := stream.read(1 << 22):
            spool.write(block)
        try:
            archive = zipfile.ZipFile(spool)
        except zipfile.BadZipFile:
            return
        with archive:
            for info in archive.infolist():
                name = f"{path}!/{info.filename}"
                if not info.is_dir() and wanted(name) and info.file_size <= MAX_MEMBER_BYTES:
                    try:
                        yield name, archive.read(info)
                    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError):
                        yield name, b""


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
        path = file.relative_to(folder).as_posix()
        if file.is_file() and wanted(path):
            try:
                yield path, file.read_bytes() if file.stat().st_size <= MAX_MEMBER_BYTES else b""
            except OSError:
                yield path, b""
