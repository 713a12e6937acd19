"""The greeting before a call: both sides prove that they are there, know the secret and run the same model.

A greeting is an RTP datagram of payload type 97: "SCC1", flags (1: encrypted, 2: from the listener), 8 bytes of the
model's identity, the sender's salt, the salt that it has from the other side (zero at first), and a tag of 16 bytes,
zero without a secret.  Who gets his own salt back knows that the other side is there now, and not a recording of it.

A listener remembers nobody that it has not heard twice: what it tells a caller is computed from a seed, the caller's
address and its greeting (`Identity.of`), so that an echo also proves that its sender receives at that address.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from streamcodec.errors import BitstreamError
from streamcodec.live.rtp import HEADER_BYTES, RtpHeader
from streamcodec.live.security import SALT_BYTES, TAG_BYTES, hello_tag, same

HELLO_TYPE = 97
MODEL_BYTES = 8
_MAGIC = b"SCC1"
_ENCRYPTED, _FROM_LISTENER = 1, 2
_SSRC_BYTES = 4
NO_SALT = bytes(SALT_BYTES)
HELLO_BYTES = HEADER_BYTES + len(_MAGIC) + 1 + MODEL_BYTES + 2 * SALT_BYTES + TAG_BYTES

_KEY_HERE = "the other side uses no key and this one has one; start both with the same --key FILE, or both without"
_KEY_THERE = "the other side uses a key and this one has none; start both with the same --key FILE, or both without"
_KEYS_DIFFER = "the other side uses another key; start both with the same --key FILE"


@dataclass(frozen=True, slots=True)
class Hello:
    """A greeting that was read; `key_trouble` says what is wrong with its key, "" if its sender knows the secret."""

    ssrc: int
    from_listener: bool
    model_id: bytes
    salt: bytes
    echo: bytes
    key_trouble: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What one side of a call is known by: stream identity and salt."""

    ssrc: int
    salt: bytes

    @classmethod
    def new(cls) -> Identity:
        """A random one."""
        return cls(secrets.randbits(8 * _SSRC_BYTES), new_salt())

    @classmethod
    def of(cls, seed: bytes, hello: Hello, address: Any) -> Identity:
        """The one shown to the sender of a greeting, the same whenever this seed is asked, and told to nobody else."""
        asked = repr((address, hello.ssrc, hello.salt)).encode()
        made = hmac.digest(seed, asked, hashlib.sha256)
        return cls(int.from_bytes(made[:_SSRC_BYTES], "big"), made[_SSRC_BYTES : _SSRC_BYTES + SALT_BYTES])


def new_salt() -> bytes:
    """Fresh random salt."""
    return secrets.token_bytes(SALT_BYTES)


def pack_hello(
    ssrc: int, model_id: bytes, salt: bytes, echo: bytes, secret: bytes | None, *, from_listener: bool = False
) -> bytes:
    """Datagram of a greeting."""
    flags = (_ENCRYPTED if secret is not None else 0) | (_FROM_LISTENER if from_listener else 0)
    body = RtpHeader(HELLO_TYPE, 0, 0, ssrc).pack() + _MAGIC + bytes((flags,)) + model_id[:MODEL_BYTES] + salt + echo
    return body + (bytes(TAG_BYTES) if secret is None else hello_tag(secret, body))


def parse_hello(datagram: bytes, secret: bytes | None) -> Hello:
    """Read a greeting.

    Raises
    ------
    BitstreamError
        Not a greeting.
    """
    header = RtpHeader.parse(datagram)
    if len(datagram) != HELLO_BYTES or datagram[HEADER_BYTES : HEADER_BYTES + len(_MAGIC)] != _MAGIC:
        raise BitstreamError(f"a greeting of {len(datagram)} bytes; it takes {HELLO_BYTES}")
    at = HEADER_BYTES + len(_MAGIC)
    flags = datagram[at]
    if flags & ~(_ENCRYPTED | _FROM_LISTENER):
        raise BitstreamError(f"a greeting with flags {flags:#04x}; {_ENCRYPTED | _FROM_LISTENER:#04x} are known")
    body, tag = datagram[:-TAG_BYTES], datagram[-TAG_BYTES:]
    if not flags & _ENCRYPTED:
        trouble = _KEY_HERE if secret is not None else ""
    elif secret is None:
        trouble = _KEY_THERE
    else:
        trouble = "" if same(tag, hello_tag(secret, body)) else _KEYS_DIFFER
    return Hello(
        header.ssrc,
        bool(flags & _FROM_LISTENER),
        body[at + 1 : at + 1 + MODEL_BYTES],
        body[-2 * SALT_BYTES : -SALT_BYTES],
        body[-SALT_BYTES:],
        trouble,
    )
