"""One side of a call: datagrams in, datagrams out, on any clock and any transport.

It trusts no datagram: what is malformed, forged, repeated, of another stream or from another place is counted and
dropped, and leaves no trace in the state.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.bitstream import make_packet, read_packet
from streamcodec.codec import Codec
from streamcodec.engine import Int16
from streamcodec.errors import BitstreamError, WrongModel
from streamcodec.live.adaptation import LossMeter, RateControl
from streamcodec.live.handshake import (
    HELLO_TYPE,
    MODEL_BYTES,
    NO_SALT,
    Hello,
    new_salt,
    new_ssrc,
    pack_hello,
    parse_hello,
)
from streamcodec.live.payload import MAX_COPIES, Media
from streamcodec.live.pipeline import DeviceDelay, side_report
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.receiver import Receiver
from streamcodec.live.rtp import HEADER_BYTES, ReplayWindow, RtpHeader, unwrapped
from streamcodec.live.security import Sealer
from streamcodec.live.sender import Sender

MEDIA_TYPE = 96
Address = Any
SendDatagram = Callable[[bytes, Address], None]
Role = Literal["caller", "listener"]

_HELLO_EVERY_S = 0.25
_GONE_AFTER_S = 5.0
_LARGEST_LEAP = 3000  # 40 s


class CallPeer:
    """A caller, or a listener that takes one call at a time.

    Parameters
    ----------
    codec : Codec
        Both sides have the same weights.
    capture, playback : Ring
        See `Sender` and `Receiver`.
    capture_hz, playback_hz : int
        Rates of the devices.
    send : callable
        Gets datagram and address.
    address : Address, optional
        Whom to call; None listens.
    secret : bytes, optional
        Encrypts the call; both sides need the same.
    bitrate_bps : float
        Bitrate without loss.
    copies : int, optional
        Copies of earlier frames in every datagram; None lets the loss decide.
    policy : LatencyPolicy, optional
        How much audio to hold.
    capture_times, playback_times : Timeline, optional
        Marked by the devices' callbacks.

    Attributes
    ----------
    counters : dict of str to int
        What became of the datagrams.
    """

    def __init__(
        self,
        codec: Codec,
        capture: Ring,
        playback: Ring,
        capture_hz: int,
        playback_hz: int,
        send: SendDatagram,
        *,
        address: Address | None = None,
        secret: bytes | None = None,
        bitrate_bps: float = 6000,
        copies: int | None = None,
        policy: LatencyPolicy | None = None,
        capture_times: Timeline | None = None,
        playback_times: Timeline | None = None,
    ) -> None:
        self.codec, self.secret, self._send = codec, secret, send
        self.role: Role = "listener" if address is None else "caller"
        self.rate = RateControl(codec.config, bitrate_bps, copies)
        self.sender = Sender(codec, capture, capture_hz, bitrate_bps, self._send_media, timeline=capture_times)
        self.receiver = Receiver(
            codec, playback, playback_hz, policy or LatencyPolicy.network(10.0), timeline=playback_times
        )
        self.capture_device = DeviceDelay(self.sender.timeline)
        self.playback_device = DeviceDelay(self.receiver.timeline)
        self.counters = dict.fromkeys(("media", "hello", "malformed", "forged", "repeated", "foreign", "refused"), 0)
        self.address: Address | None = address
        self.connected = self.ended = False
        self.calls = 0
        self.payload_bytes = 0
        self.refusal = ""
        self._codes: deque[Int16] = deque(maxlen=MAX_COPIES)
        self._now_s = 0.0
        self._renew()

    def _renew(self) -> None:
        """Be ready for another call: nothing of the last one, salts and keys above all, is used again."""
        self.connected = False
        self._ssrc, self._salt = new_ssrc(), new_salt()
        self._their_ssrc: int | None = None
        self._their_salt = NO_SALT
        self._sealer: Sealer | None = None
        self._opener: Sealer | None = None
        self._window = ReplayWindow()
        self._meter = LossMeter()
        self._number = secrets.randbits(15)
        self._timestamp = secrets.randbits(32)
        self._their_origin: tuple[int, int] | None = None
        self._media_heard = False
        self._heard_s = self._hello_s = self._rate_s = float("-inf")
        self._codes.clear()

    # ------------------------------------------------------------------ time
    def pump(self, now_s: float) -> int:
        """Greet, encode, send and decode what is due; how many frames.

        Raises
        ------
        WrongModel
            The other side has other weights (caller only; a listener goes on listening).
        """
        self._now_s = now_s
        if (
            self.role == "caller"
            and not self.ended
            and not self._media_heard
            and now_s - self._hello_s > _HELLO_EVERY_S
        ):
            self._hello_s = now_s
            self._greet(self.address)
        if self.connected and now_s - self._heard_s > _GONE_AFTER_S:
            self._hang_up()
        capture = self.sender.capture
        if not self.connected:
            capture.commit_read(capture.readable_samples)
            return self.receiver.pump(now_s)
        self._meter.look(now_s)
        frames = self.sender.pump(now_s)
        frames = max(frames, self.receiver.pump(now_s))
        self.capture_device.look()
        self.playback_device.look()
        return frames

    @property
    def loss_received(self) -> float:
        """Loss of what the other side sends, in the last second."""
        return self._meter.loss

    def _hang_up(self) -> None:
        self.ended = self.role == "caller"
        address = self.address if self.role == "caller" else None
        self._renew()
        self.address = address

    # ------------------------------------------------------------------ out
    def _greet(self, address: Address) -> None:
        self._send(pack_hello(self._ssrc, self.codec.model_id, self._salt, self._their_salt, self.secret), address)

    def _send_media(self, sequence: int, packet: bytes, captured_s: float) -> None:
        config, rate = self.codec.config, self.rate
        sent = read_packet(packet, config.bits_per_code)
        count = rate.copy_codebooks
        copies = tuple(
            make_packet(codes[:count], config.bits_per_code)
            for codes in list(self._codes)[: rate.n_copies]
            if len(codes) >= count
        )
        payload = Media(packet, len(sent), copies, count if copies else 0, self._meter.loss).pack()
        self.payload_bytes += len(payload)
        number = self._number
        header = RtpHeader(MEDIA_TYPE, number, self._timestamp, self._ssrc, marker=self.sender.sequence == 0).pack()
        self._send(header + (self._sealer.seal(number, header, payload) if self._sealer else payload), self.address)
        self._codes.appendleft(sent)
        self._number += 1
        self._timestamp += self.codec.frame_samples
        self.sender.encoder.bitrate_bps = rate.bitrate_bps

    # ------------------------------------------------------------------ in
    def receive(self, datagram: bytes, address: Address, now_s: float) -> None:
        """Take a datagram of unknown worth."""
        self._now_s = now_s
        try:
            header = RtpHeader.parse(datagram)
            if header.payload_type == HELLO_TYPE:
                self._receive_hello(datagram, address)
            elif header.payload_type == MEDIA_TYPE:
                self._receive_media(header, datagram, address)
            else:
                raise BitstreamError(f"RTP payload type {header.payload_type} is unknown")
        except WrongModel:
            raise
        except BitstreamError:
            self.counters["malformed"] += 1

    def _receive_hello(self, datagram: bytes, address: Address) -> None:
        hello = parse_hello(datagram, self.secret)
        if hello is None:
            self.counters["forged"] += 1
            return
        busy = self.connected and (address != self.address or hello.ssrc != self._their_ssrc)
        if busy or hello.ssrc == self._ssrc or (self.role == "caller" and address != self.address):
            self.counters["foreign"] += 1
            return
        if hello.encrypted != (self.secret is not None):
            which = "a key and this one has none" if hello.encrypted else "no key and this one has one"
            self._refuse(f"the other side uses {which}; start both with the same --key FILE, or both without", address)
            return
        if hello.model_id != self.codec.model_id[:MODEL_BYTES]:
            self._refuse("the other side runs another model; start both with the same weights", address)
            if self.role == "caller":
                raise WrongModel(self.refusal)
            return
        self.counters["hello"] += 1
        self._answer(hello, address)

    def _refuse(self, reason: str, address: Address) -> None:
        self.counters["refused"] += 1
        self.refusal = reason
        if self.role == "listener":
            self._greet(address)  # so that the caller learns why

    def _answer(self, hello: Hello, address: Address) -> None:
        """Connect if the greeting shows that the other side is there now; tell a listener's salt to who asks."""
        if self.connected:
            if self.role == "listener":
                self._greet(address)
            return
        alive = hello.echo == self._salt
        if self.role == "caller" and not alive:
            return
        self._their_salt = hello.salt
        if alive:
            self._connect(hello, address)
        self._greet(address)

    def _connect(self, hello: Hello, address: Address) -> None:
        self.connected, self.address, self._their_ssrc = True, address, hello.ssrc
        self.calls += 1
        self.sender.encoder.reset()
        self.receiver.restart()
        self._heard_s = self._now_s
        if self.secret is not None:
            ours, theirs = (b"caller", b"listener") if self.role == "caller" else (b"listener", b"caller")
            salts = self._salt + hello.salt if self.role == "caller" else hello.salt + self._salt
            self._sealer, self._opener = Sealer(self.secret, salts, ours), Sealer(self.secret, salts, theirs)

    def _receive_media(self, header: RtpHeader, datagram: bytes, address: Address) -> None:
        if not self.connected or header.ssrc != self._their_ssrc or address != self.address:
            self.counters["foreign"] += 1
            return
        number = unwrapped(header.sequence, self._window.highest)
        if not self._window.is_new(number):
            self.counters["repeated"] += 1
            return
        payload: bytes | None = datagram[HEADER_BYTES:]
        if self._opener is not None:
            payload = self._opener.open(number, datagram[:HEADER_BYTES], datagram[HEADER_BYTES:])
        if payload is None:
            self.counters["forged"] += 1
            return
        media = Media.parse(payload, self.codec.config)
        self._check_place(number, header.timestamp)
        self._window.take(number)
        self.counters["media"] += 1
        self._media_heard = True
        self._heard_s = self._now_s
        self._meter.received(number)
        if self._now_s - self._rate_s >= 1:
            self._rate_s = self._now_s
            self.rate.report(media.seen_loss, self._now_s)
        self.receiver.controller.needed_frames = len(media.copies)
        self.receiver.push(number, media.packet, self._now_s)
        for back, copy in enumerate(media.copies, start=1):
            self.receiver.push(number - back, copy, self._now_s, coarse=True)

    def _check_place(self, number: int, timestamp: int) -> None:
        """Refuse a leap, and a timestamp that does not fit the number."""
        if self._their_origin is None:
            self._their_origin = number, timestamp
        highest = self._window.highest
        if highest is not None and number - highest > _LARGEST_LEAP:
            raise BitstreamError(f"a leap of {number - highest} datagrams; at most {_LARGEST_LEAP}")
        first, origin = self._their_origin
        if (timestamp - origin - (number - first) * self.codec.frame_samples) & 0xFFFF_FFFF:
            raise BitstreamError(f"timestamp {timestamp} does not fit datagram {number}")

    def report(self) -> dict[str, Any]:
        """Counters and latencies of this side."""
        return {
            "connected": self.connected,
            "calls": self.calls,
            "encrypted": self.secret is not None,
            "datagrams": dict(self.counters),
            "loss_received": self.loss_received,
            "loss_sent": self.rate.loss,
            "copies": self.rate.n_copies,
            "payload_bps": 8 * self.payload_bytes / max(self.sender.sequence * self.receiver.frame_s, 1e-9),
            **side_report(self.sender, self.receiver, self.capture_device, self.playback_device),
        }
