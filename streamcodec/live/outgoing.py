"""What one side of a call sends: packets and copies of those before them as numbered datagrams, sealed with a key."""

from __future__ import annotations

import secrets
from collections import deque

from streamcodec.bitstream import make_packet, read_packet
from streamcodec.codec import Codec
from streamcodec.engine import Int16
from streamcodec.live.adaptation import RateControl
from streamcodec.live.payload import MAX_COPIES, Media
from streamcodec.live.rtp import RtpHeader
from streamcodec.live.security import Sealer

MEDIA_TYPE = 96


class Outgoing:
    """Makes the media datagrams of a call.

    Parameters
    ----------
    codec : Codec
        Model.
    rate : RateControl
        Says how many copies ride along, and of how many codebooks.

    Attributes
    ----------
    sealer : Sealer or None
        Seals what is sent; a call without a key has none.
    payload_bytes : int
        Bytes of all payloads before sealing.
    """

    def __init__(self, codec: Codec, rate: RateControl) -> None:
        self._codec, self._rate = codec, rate
        self._codes: deque[Int16] = deque(maxlen=MAX_COPIES)
        self.payload_bytes = 0
        self.renew()

    def renew(self) -> None:
        """Be ready for another call: other numbers, no key, no earlier frames."""
        self.sealer: Sealer | None = None
        self._number = secrets.randbits(15)
        self._timestamp = secrets.randbits(32)
        self._codes.clear()

    def pack(self, ssrc: int, packet: bytes, seen_loss: float, *, marker: bool) -> bytes:
        """Datagram of the next packet; `seen_loss` is that of what comes from the other side, 0 to 1."""
        bits, count = self._codec.config.bits_per_code, self._rate.copy_codebooks
        sent = read_packet(packet, bits)
        copies = tuple(
            make_packet(codes[:count], bits)
            for codes in list(self._codes)[: self._rate.n_copies]
            if len(codes) >= count
        )
        payload = Media(packet, len(sent), copies, count if copies else 0, seen_loss).pack()
        self.payload_bytes += len(payload)
        header = RtpHeader(MEDIA_TYPE, self._number, self._timestamp, ssrc, marker=marker).pack()
        datagram = header + (self.sealer.seal(self._number, header, payload) if self.sealer else payload)
        self._codes.appendleft(sent)
        self._number += 1
        self._timestamp += self._codec.frame_samples
        return datagram
