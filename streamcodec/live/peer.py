"""One side of a call: datagrams in, datagrams out, on any clock and any transport.

It trusts no datagram: what is malformed, forged, repeated or of another stream is counted and dropped, and leaves no
trace in the state.  A greeting is believed when it brings back a salt that only the other side can have, media when
they open with the call's key; a call without a key moves to another place only after a greeting from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.codec import Codec
from streamcodec.errors import BitstreamError, WrongModel
from streamcodec.live.adaptation import LossMeter, RateControl
from streamcodec.live.handshake import (
    HELLO_TYPE,
    MODEL_BYTES,
    NO_SALT,
    Hello,
    Identity,
    new_salt,
    pack_hello,
    parse_hello,
)
from streamcodec.live.limit import AnswerLimit
from streamcodec.live.outgoing import MEDIA_TYPE, Outgoing
from streamcodec.live.payload import Media
from streamcodec.live.pipeline import DeviceDelay, side_report
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.receiver import Receiver
from streamcodec.live.rtp import HEADER_BYTES, ReplayWindow, RtpHeader, StreamClock, unwrapped
from streamcodec.live.security import Sealer, same
from streamcodec.live.sender import Sender

Address = Any
SendDatagram = Callable[[bytes, Address], None]
Role = Literal["caller", "listener"]

_HELLO_EVERY_S = 0.25
_ANSWER_WITHIN_S = 30.0
_GONE_AFTER_S = 5.0
_SILENT_AFTER_S = 1.0
_LONGEST_TURN_S = 0.5


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
    alternatives : sequence of Address
        Where else the one to call may be; all are greeted in turn until one answers.
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
    connected, ended : bool
        In a call; done (a caller that nobody answered for 30 s, or whose call is over).
    calls : int
        Calls that were set up.
    refusal : str
        Why someone who proved to be there was not taken: other key, other weights.
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
        alternatives: Sequence[Address] = (),
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
        self.outgoing = Outgoing(codec, self.rate)
        self.sender = Sender(codec, capture, capture_hz, bitrate_bps, self._send_media, timeline=capture_times)
        self.receiver = Receiver(
            codec, playback, playback_hz, policy or LatencyPolicy.network(10.0), timeline=playback_times
        )
        self.capture_device = DeviceDelay(self.sender.timeline)
        self.playback_device = DeviceDelay(self.receiver.timeline)
        self.counters = dict.fromkeys(
            ("media", "hello", "malformed", "forged", "repeated", "foreign", "refused", "throttled"), 0
        )
        self.address: Address | None = address
        self._places = (address, *alternatives)
        self.connected = self.ended = False
        self.calls = 0
        self.refusal = ""
        self._limit = AnswerLimit()
        self._greeted = 0
        self._give_up_s: float | None = None
        self._now_s = 0.0
        self._pumped_s = float("inf")
        self._renew()

    def _renew(self) -> None:
        """Be ready for another call: nothing of the last one, salts and keys above all, is used again."""
        self.connected = False
        self._seed = new_salt()  # of what is shown to those that have proved nothing
        me = Identity.new()
        self._ssrc, self._salt = me.ssrc, me.salt
        self._their_ssrc: int | None = None
        self._their_salt = NO_SALT
        self._opener: Sealer | None = None
        self._window = ReplayWindow()
        self._meter = LossMeter()
        self._clock = StreamClock(self.codec.frame_samples)
        self._media_heard = False
        self._heard_s = self._hello_s = self._rate_s = float("-inf")
        self.outgoing.renew()

    # ------------------------------------------------------------------ time
    def pump(self, now_s: float) -> int:
        """Greet, encode, send and decode what is due; how many frames.

        Raises
        ------
        WrongModel
            The other side has other weights (caller only; a listener goes on listening).
        """
        self._now_s = now_s
        stood_still_s = now_s - self._pumped_s - _LONGEST_TURN_S
        if stood_still_s > 0:  # time in which this side could not listen is not the other's silence
            self._heard_s = min(self._heard_s + stood_still_s, now_s)
            if self._give_up_s is not None:
                self._give_up_s += stood_still_s
        self._pumped_s = now_s
        if self._greeting_is_due():
            self._hello_s = now_s
            if not self.connected:
                self.address = self._places[self._greeted % len(self._places)]
                self._greeted += 1
            self._greet(self.address, self._their_salt)
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

    def _greeting_is_due(self) -> bool:
        """Until the other side is heard, and again in a call without a key that fell silent.

        A router may have given this side another port, which only a greeting can tell.
        """
        if self.ended or self._now_s - self._hello_s <= _HELLO_EVERY_S:
            return False
        if self.role == "caller" and not self.connected:
            self._give_up_s = self._give_up_s or self._now_s + _ANSWER_WITHIN_S
            self.ended = self._now_s > self._give_up_s
            return not self.ended
        silent = self.connected and self.secret is None and self._now_s - self._heard_s > _SILENT_AFTER_S
        return silent or (self.role == "caller" and not self._media_heard)

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
    def _greet(self, address: Address, echo: bytes, me: Identity | None = None) -> None:
        me = me or Identity(self._ssrc, self._salt)
        listens = self.role == "listener"
        self._send(pack_hello(me.ssrc, self.codec.model_id, me.salt, echo, self.secret, from_listener=listens), address)

    def _answer(self, address: Address, hello: Hello, me: Identity | None = None) -> bool:
        """Answer a greeting of one who may be a stranger, never with more bytes, and not too often."""
        source = getattr(address, "host", address), not hello.key_trouble
        allowed = self._limit.allows(source, self._now_s)
        if allowed:
            self._greet(address, hello.salt, me)
        return allowed

    def _send_media(self, sequence: int, packet: bytes, captured_s: float) -> None:
        datagram = self.outgoing.pack(self._ssrc, packet, self._meter.loss, marker=sequence == 0)
        self._send(datagram, self.address)
        self.sender.encoder.bitrate_bps = self.rate.bitrate_bps

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
        if self.ended or hello.from_listener == (self.role == "listener"):
            self.counters["foreign"] += 1  # one of its own kind, or what it sent itself
        elif self.role == "listener" and not self.connected:
            self._hear_caller(hello, address)
        elif self.role == "caller" and not self._media_heard:
            self._hear_listener(hello, address)
        else:
            self._hear_in_call(hello, address)

    def _trouble(self, hello: Hello) -> str:
        if not hello.key_trouble and hello.model_id != self.codec.model_id[:MODEL_BYTES]:
            return "the other side runs another model; start both with the same weights"
        return hello.key_trouble

    def _hear_caller(self, hello: Hello, address: Address) -> None:
        """Take a call whose greeting echoes what was shown to that address; show it to all others."""
        me = Identity.of(self._seed, hello, address)
        if same(hello.echo, me.salt):
            if trouble := self._trouble(hello):
                self._refuse(trouble)
                return
            self.counters["hello"] += 1
            self._connect(me, hello, address)
        elif self._answer(address, hello, me):
            self.counters["forged" if hello.key_trouble else "hello"] += 1
        else:
            self.counters["throttled"] += 1

    def _hear_listener(self, hello: Hello, address: Address) -> None:
        """Connect to who echoes this caller's salt.

        The first that does so is kept, unless it is none of the places called: then one of those takes over.  If the
        same listener answers from another place too, it is greeted there: with a key, its media say where it is.
        """
        trouble = self._trouble(hello)
        if not same(hello.echo, self._salt) or (self.connected and trouble):
            self.counters["forged" if hello.key_trouble else "foreign"] += 1
            return
        if trouble:
            if not self.refusal:
                self._give_up_s = self._now_s + _GONE_AFTER_S
            self._refuse(trouble)
            self._answer(address, hello)  # with the echo that lets the listener say it too
            if not hello.key_trouble:
                raise WrongModel(trouble)
            return
        self.counters["hello"] += 1
        known, here = hello.ssrc == self._their_ssrc, address == self.address
        if not self.connected or here or (address in self._places and self.address not in self._places):
            if not (known and here):
                self._connect(Identity(self._ssrc, self._salt), hello, address)
                self._greet(address, hello.salt)
            elif hello.salt != self._their_salt:
                self._answer(address, hello)
        elif known:
            self._answer(address, hello)

    def _hear_in_call(self, hello: Hello, address: Address) -> None:
        """Follow a call without a key to the place that echoes a salt made for that place alone."""
        if hello.ssrc != self._their_ssrc or self._trouble(hello):
            self.counters["forged" if hello.key_trouble else "foreign"] += 1
            return
        self.counters["hello"] += 1
        if self.secret is not None:  # sealed media say where it is
            return
        if hello.salt != self._their_salt:
            if same(hello.echo, self._salt):  # the other side asks whether this one is where it seems to be
                self._answer(address, hello)
        elif address != self.address:
            there = Identity(self._ssrc, Identity.of(self._seed, hello, address).salt)
            if same(hello.echo, there.salt):
                self.address, self._seed = address, new_salt()
            elif same(hello.echo, self._salt):
                self._answer(address, hello, there)

    def _refuse(self, trouble: str) -> None:
        self.counters["refused"] += 1
        self.refusal = trouble

    def _connect(self, me: Identity, hello: Hello, address: Address) -> None:
        self.calls += not self.connected
        self.connected, self.address, self.refusal = True, address, ""
        self._ssrc, self._salt, self._their_ssrc, self._their_salt = me.ssrc, me.salt, hello.ssrc, hello.salt
        self.sender.encoder.reset()
        self.receiver.restart()
        self._heard_s = self._now_s
        if self.secret is not None:
            ours, theirs = (b"caller", b"listener") if self.role == "caller" else (b"listener", b"caller")
            salts = self._salt + hello.salt if self.role == "caller" else hello.salt + self._salt
            self.outgoing.sealer, self._opener = Sealer(self.secret, salts, ours), Sealer(self.secret, salts, theirs)

    def _receive_media(self, header: RtpHeader, datagram: bytes, address: Address) -> None:
        here, elsewhere = address == self.address, "foreign"
        if not self.connected or header.ssrc != self._their_ssrc or not (here or self._opener):
            self.counters["foreign"] += 1
            return
        number = unwrapped(header.sequence, self._window.highest)
        if not self._window.is_new(number):
            self.counters["repeated" if here else elsewhere] += 1
            return
        payload: bytes | None = datagram[HEADER_BYTES:]
        if self._opener is not None:
            payload = self._opener.open(number, datagram[:HEADER_BYTES], datagram[HEADER_BYTES:])
        if payload is None:
            self.counters["forged" if here else elsewhere] += 1
            return
        media = Media.parse(payload, self.codec.config)
        self._clock.check(number, header.timestamp, self._window.highest)
        if not here and (self._window.highest is None or number > self._window.highest):
            self.address = address  # a router gave the other side another port
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

    def report(self) -> dict[str, Any]:
        """Counters and latencies of this side."""
        return {
            "connected": self.connected,
            "calls": self.calls,
            "encrypted": self.secret is not None,
            "refusal": self.refusal,
            "datagrams": dict(self.counters),
            "loss_received": self.loss_received,
            "loss_sent": self.rate.loss,
            "copies": self.rate.n_copies,
            "payload_bps": 8 * self.outgoing.payload_bytes / max(self.sender.sequence * self.receiver.frame_s, 1e-9),
            **side_report(self.sender, self.receiver, self.capture_device, self.playback_device),
        }
