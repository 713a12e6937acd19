"""The greeting before a call: both sides prove that they are there, know the secret and run the same model.

A greeting is an RTP datagram of payload type 97: "SCC1", flags (1: encrypted), 8 bytes of the model's identity, the
sender's salt, the salt that it has from the other side (zero at first), and a tag of 16 bytes, zero without a secret.
Who gets his own salt back knows that the other side is there now, and not a recording of it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from streamcodec.errors import BitstreamError
from streamcodec.live.rtp import HEADER_BYTES, RtpHeader
from streamcodec.live.security import SALT_BYTES, TAG_BYTES, hello_tag, same

HELLO_TYPE = 97
MODEL_BYTES = 8
_MAGIC = b"SCC1"
_ENCRYPTED = 1
NO_SALT = bytes(SALT_BYTES)
HELLO_BYTES = HEADER_BYTES + len(_MAGIC) + 1 + MODEL_BYTES + 2 * SALT_BYTES + TAG_BYTES


@dataclass(frozen=True, slots=True)
class Hello:
    """A greeting that was read."""

    ssrc: int
    encrypted: bool
    model_id: bytes
    salt: bytes
    echo: bytes


def new_salt() -> bytes:
    """Fresh random salt."""
    return secrets.token_bytes(SALT_BYTES)


def new_ssrc() -> int:
    """Random stream identity."""
    return secrets.randbits(32)


def pack_hello(ssrc: int, model_id: bytes, salt: bytes, echo: bytes, secret: bytes | None) -> bytes:
    """Datagram of a greeting."""
    header = RtpHeader(HELLO_TYPE, 0, 0, ssrc).pack()
    body = header + _MAGIC + bytes((_ENCRYPTED if secret else 0,)) + model_id[:MODEL_BYTES] + salt + echo
    return body + (hello_tag(secret, body) if secret else bytes(TAG_BYTES))


def parse_hello(datagram: bytes, secret: bytes | None) -> Hello | None:
    """Read a greeting; None if its tag is wrong: its sender does not know the secret.

    Raises
    ------
    BitstreamError
        Not a greeting.
    """
    header = RtpHeader.parse(datagram)
    if len(datagram) != HELLO_BYTES or datagram[HEADER_BYTES : HEADER_BYTES + len(_MAGIC)] != _MAGIC:
        raise BitstreamError(f"a greeting of {len(datagram)} bytes; it takes {HELLO_BYTES}")
    at = HEADER_BYTES + len(_MAGIC)
    encrypted = bool(datagram[at] & _ENCRYPTED)
    body, tag = datagram[:-TAG_BYTES], datagram[-TAG_BYTES:]
    if encrypted and secret is not None and not same(tag, hello_tag(secret, body)):
        return None
    model_id, salt, echo = (
        body[at + 1 : at + 1 + MODEL_BYTES],
        body[-2 * SALT_BYTES : -SALT_BYTES],
        body[-SALT_BYTES:],
    )
    return Hello(header.ssrc, encrypted, model_id, salt, echo)
