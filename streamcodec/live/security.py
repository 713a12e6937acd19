"""Keys of a call: a shared secret from a file, fresh keys for each call and each direction, sealed datagrams.

Both sides give 16 random bytes of salt; HKDF-SHA256 (RFC 5869) of secret and salts is the key of one direction of one
call, ChaCha20-Poly1305 (RFC 8439) with the datagram's number as nonce seals it, its RTP header included.  A number
is never used twice with a key, and what was recorded of another call does not open.
"""

from __future__ import annotations

import codecs
import hashlib
import hmac
from pathlib import Path
from typing import Any

from streamcodec.errors import ConfigError, MissingExtraError

SALT_BYTES = 16
TAG_BYTES = 16
KEY_BYTES = 32
_KEY_FILE_LIMIT = 4096


def load_key(path: Path) -> bytes:
    """Secret of a file, 32 to 4096 bytes; `head -c 32 /dev/urandom > FILE` makes one.

    In a text file, what editors and copies change does not count: a byte order mark, the kind of line ends, and spaces,
    tabs and line ends at the end of a line or of the file.  Any other file is taken byte by byte.

    Raises
    ------
    ConfigError
        Too short to be a secret, or too long.
    MissingExtraError
        cryptography is not installed.
    """
    with path.open("rb") as file:
        content = file.read(_KEY_FILE_LIMIT + 1)
    secret = content if len(content) > _KEY_FILE_LIMIT else _secret(content)
    if not KEY_BYTES <= len(secret) <= _KEY_FILE_LIMIT:
        held = f"{len(secret)} bytes" if len(content) <= _KEY_FILE_LIMIT else f"more than {_KEY_FILE_LIMIT} bytes"
        counted = ", without what does not count at the end of lines" if len(secret) != len(content) else ""
        raise ConfigError(
            f"{path} holds {held}{counted}; a key is {KEY_BYTES} to {_KEY_FILE_LIMIT} random bytes: "
            f"head -c {KEY_BYTES} /dev/urandom > {path}"
        )
    _chacha()
    return secret


def _secret(content: bytes) -> bytes:
    """Text as UTF-8 in its plainest form; anything else as it is."""
    marks = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
    mark, encoding = next(((mark, name) for mark, name in marks if content.startswith(mark)), (b"", "utf-8"))
    try:
        text = content.removeprefix(mark).decode(encoding)
    except UnicodeDecodeError:
        return content
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if any(char < " " and char not in "\n\t" for char in text) or (encoding != "utf-8" and not text.isascii()):
        return content  # nearly all random bytes are UTF-16
    return "\n".join(line.rstrip(" \t") for line in text.split("\n")).rstrip("\n").encode()


def _chacha() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    except ImportError:
        raise MissingExtraError("cryptography", "call") from None
    return ChaCha20Poly1305


def derived_key(secret: bytes, salt: bytes, purpose: bytes) -> bytes:
    """HKDF-SHA256, 32 bytes."""
    extracted = hmac.digest(salt, secret, hashlib.sha256)
    return hmac.digest(extracted, purpose + b"\x01", hashlib.sha256)


def hello_tag(secret: bytes, message: bytes) -> bytes:
    """Proof that the sender of a greeting knows the secret, 16 bytes."""
    key = derived_key(secret, b"streamcodec call", b"hello")
    return hmac.digest(key, message, hashlib.sha256)[:TAG_BYTES]


def same(a: bytes, b: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(a, b)


class Sealer:
    """Seals and opens the datagrams of one direction of one call.

    Parameters
    ----------
    secret : bytes
        Shared.
    salts : bytes
        The caller's, then the listener's.
    direction : bytes
        Who sends: b"caller" or b"listener".
    """

    def __init__(self, secret: bytes, salts: bytes, direction: bytes) -> None:
        self._cipher = _chacha()(derived_key(secret, salts, b"media " + direction))

    @staticmethod
    def _nonce(number: int) -> bytes:
        return number.to_bytes(12, "big")

    def seal(self, number: int, header: bytes, payload: bytes) -> bytes:
        """Encrypted payload and tag; the header is authenticated with it."""
        sealed: bytes = self._cipher.encrypt(self._nonce(number), payload, header)
        return sealed

    def open(self, number: int, header: bytes, sealed: bytes) -> bytes | None:
        """Payload, or None if it was not sealed as this number with this header."""
        from cryptography.exceptions import InvalidTag

        try:
            payload: bytes = self._cipher.decrypt(self._nonce(number), sealed, header)
        except InvalidTag:
            return None
        return payload
