"""The format of a file, told by what is in it; names play no part."""

from __future__ import annotations

import codecs
import os
from typing import BinaryIO

from streamcodec.audio.au import au_layout
from streamcodec.audio.chunks import chunk_layout
from streamcodec.audio.layout import Layout, Piece
from streamcodec.audio.mpeg import is_adts, mpeg_layout
from streamcodec.audio.older import older_layout
from streamcodec.audio.pages import flac_layout, ogg_layout
from streamcodec.audio.scan import id3_bytes, read_at
from streamcodec.audio.view import Span
from streamcodec.errors import AudioError

_HEAD_BYTES = 512
_BY_LIBAV = (
    ("MP4", 4, b"ftyp"),
    ("QuickTime", 4, b"moov"),
    ("QuickTime", 4, b"mdat"),
    ("WebM or Matroska", 0, b"\x1aE\xdf\xa3"),
    ("Windows Media", 0, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")),
    ("AMR", 0, b"#!AMR"),
    ("AAC (ADIF)", 0, b"ADIF"),
    ("WavPack", 0, b"wvpk"),
    ("Monkey's Audio", 0, b"MAC "),
    ("True Audio", 0, b"TTA1"),
    ("Musepack", 0, b"MPCK"),
    ("Flash video", 0, b"FLV\x01"),
    ("AC-3", 0, b"\x0bw"),
    ("AVI", 8, b"AVI "),
    ("an MPEG programme stream", 0, b"\0\0\1\xba"),
    ("an MPEG transport stream", 188, b"G"),
    ("DSF", 0, b"DSD "),
    ("DTS", 0, b"\x7f\xfe\x80\x01"),
    ("RealMedia", 0, b".RMF"),
)
_TEXT_HEADERS = (b"Extended Instrument",)
_OTHERS = (
    ("a PDF file", b"%PDF"),
    ("a zip archive", b"PK\3\4"),
    ("a PNG image", b"\x89PNG"),
    ("a JPEG image", b"\xff\xd8\xff"),
    ("a GIF image", b"GIF8"),
    ("a gzip archive", b"\x1f\x8b"),
    ("macOS's companion of another file", b"\0\5\x16\7"),
)


def layout_of(file: BinaryIO) -> Layout:
    """Format and pieces of a sound file that is open for reading and can be searched.

    What is not recognised has the kind "", and is libsndfile's to decide on, which knows more formats.

    Raises
    ------
    AudioError
        It is empty, or plainly something else; the text goes after the file's name.
    """
    size = file.seek(0, os.SEEK_END)
    head = read_at(file, 0, _HEAD_BYTES)
    if not head:
        raise AudioError("is empty (0 bytes).")
    layout = chunk_layout(file, size) or au_layout(file, size) or ogg_layout(file, size) or older_layout(file, size)
    if layout is not None:
        return layout
    start = 0
    while length := id3_bytes(read_at(file, start, 10)):
        start += length
    layout = flac_layout(file, start, size)
    if layout is not None:
        return layout
    begin = read_at(file, start, _HEAD_BYTES)
    whole = [Piece((Span(start, max(0, size - start)),))]
    if is_adts(file, start, size):
        return Layout("AAC (ADTS)", whole, by_libav=True)
    for kind, at, magic in _BY_LIBAV:
        if begin[at : at + len(magic)] == magic and (len(magic) > 1 or begin[:1] == begin[376:377] == magic):
            return Layout(kind, whole, by_libav=True)
    for kind, magic in _OTHERS:
        if begin.startswith(magic):
            raise AudioError(f"is {kind}.")
    return mpeg_layout(file, start, size) or _unknown(begin, whole)


def _unknown(begin: bytes, whole: list[Piece]) -> Layout:
    if not any(begin):
        raise AudioError("begins with zeros where a format would be named.")
    text = begin.decode("latin-1").lstrip("\ufeff\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(("<!doctype", "<html", "<?xml", "<head")):
        raise AudioError("is a web page or other markup.")
    if _is_text(begin) and not begin.startswith(_TEXT_HEADERS):
        raise AudioError("is text.")
    return Layout("", whole)


def _is_text(begin: bytes) -> bool:
    """Whether the beginning of a file, which may end within a character, is text."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(begin)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n\f" for character in text)
