"""Keys of a call: a shared secret from a file, fresh keys for each call and each direction, sealed datagrams.

Both sides give 16 random bytes of salt; HKDF-SHA256 (RFC 5869) of secret and salts is the key of one direction of one
call, ChaCha20-Poly1305 (RFC 8439) with the datagram's number as nonce seals it, its RTP header included.  A number
is never used twice with a key, and what was recorded of another call does not open.
"""

from __future__ import annotations

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
    """Secret of a file: all of its bytes, 32 to 4096 of them; `head -c 32 /dev/urandom > FILE` makes one.

    Raises
    ------
    ConfigError
        Too short to be a secret, or too long.
    MissingExtraError
        cryptography is not installed.
    """
    with path.open("rb") as file:
        secret = file.read(_KEY_FILE_LIMIT + 1)
    if not KEY_BYTES <= len(secret) <= _KEY_FILE_LIMIT:
        raise ConfigError(
            f"{path} holds {len(secret)} bytes; a key is {KEY_BYTES} to {_KEY_FILE_LIMIT} random bytes: "
            f"head -c {KEY_BYTES} /dev/urandom > {path}"
        )
    _chacha()
    return secret


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
