"""What strangers, recordings and forgers cannot do to a call, and what a call does when the other side is gone."""

import copy
import importlib.util
from pathlib import Path

import pytest
from call_wire import SECRET, TICK_S, Wire
from live_world import transparent_codec

from streamcodec.errors import ConfigError, WrongModel
from streamcodec.live.handshake import HELLO_BYTES, pack_hello
from streamcodec.live.limit import AnswerLimit
from streamcodec.live.outgoing import MEDIA_TYPE
from streamcodec.live.security import load_key

HELLO_TYPE = 97
MODEL = b"transpar"


def keyed(secret=SECRET):
    pytest.importorskip("cryptography", reason="cryptography is not installed (pip install 'streamcodec[call]')")
    return {"secret": secret}


@pytest.fixture(params=["plain", "encrypted"])
def options(request):
    return keyed() if request.param == "encrypted" else {}


def other_model():
    codec = copy.copy(transparent_codec())
    codec.model_id = b"otherone"
    return codec


def held(peer):
    """What decides about a call."""
    fixed = ("counters", "_now_s", "_hello_s", "_limit")
    values = {name: value for name, value in vars(peer).items() if name not in fixed}
    return {name: value for name, value in values.items() if isinstance(value, int | float | str | bytes | None)} | {
        "highest": peer._window.highest
    }


def test_a_flood_of_hostile_datagrams_moves_nothing_but_counters():
    keyed()
    path = Path(__file__).parents[1] / "bench" / "call_flood.py"
    spec = importlib.util.spec_from_file_location("call_flood", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    result = bench.flood(transparent_codec(), 8000, seed=5)
    assert result["failures"] == []
    assert result["datagrams"] == 8000
    assert result["answers"] > 100
    assert min(result["counters"][name] for name in ("malformed", "forged", "repeated", "foreign", "throttled")) > 50


@pytest.mark.parametrize("echo", ["zero", "random", "of another call"])
def test_a_greeting_of_another_model_without_the_echo_is_not_believed(options, echo):
    old = Wire(options, options).run(0.5)
    wire = Wire(options, options)
    wire.caller.pump(0.01)
    brought = {"zero": bytes(16), "random": b"r" * 16, "of another call": old.caller.peer._salt}[echo]
    forged = pack_hello(7, b"otherone", b"s" * 16, brought, from_listener=True, secret=options.get("secret"))
    before = held(wire.caller.peer)
    for place in ("listener", "elsewhere"):
        wire.caller.peer.receive(forged, place, 0.02)
    assert held(wire.caller.peer) == before
    wire.run(1)
    assert wire.caller.peer.connected


def test_a_listener_with_other_weights_is_named_on_both_sides_at_once(options):
    wire = Wire(options, {**options, "codec": other_model()})
    with pytest.raises(WrongModel, match="start both with the same weights"):
        wire.run(1)
    assert wire.now_s < 0.1
    wire.deliver()
    assert "another model" in wire.listener.peer.refusal
    assert not wire.listener.peer.connected


def test_a_running_call_is_not_ended_by_another_model_even_with_its_salts(options):
    wire = Wire(options, options).run(1)
    for side, other in ((wire.caller, wire.listener), (wire.listener, wire.caller)):
        before = held(side.peer)
        forged = pack_hello(
            side.peer._their_ssrc, b"otherone", side.peer._their_salt, side.peer._salt, options.get("secret"),
            from_listener=other is wire.listener,
        )  # fmt: skip
        for place in (other.place, "elsewhere"):
            side.peer.receive(forged, place, wire.now_s)
        assert held(side.peer) == before


def test_what_was_shown_to_one_address_is_no_proof_from_another(options):
    wire = Wire(options, options)
    listener = wire.listener.peer
    listener.pump(0.01)
    ask = pack_hello(7, MODEL, b"s" * 16, bytes(16), options.get("secret"))
    listener.receive(ask, "attacker", 0.02)
    shown = wire.sent.pop()[2]
    echo = pack_hello(7, MODEL, b"s" * 16, shown[25:41], options.get("secret"))
    before = held(listener)
    listener.receive(echo, "victim", 0.03)
    assert held(listener) == before
    listener.receive(echo, "attacker", 0.04)
    assert listener.connected


def test_a_stranger_is_never_answered_with_more_than_he_sent_nor_without_end(options):
    wire = Wire(options, options)
    peer = wire.listener.peer
    peer.pump(0.0)
    ask = pack_hello(7, MODEL, b"s" * 16, bytes(16), options.get("secret"))
    for cut in range(HELLO_BYTES):
        peer.receive(ask[:cut], "cut", 0.0)
        peer.receive(ask + bytes(cut + 1), "cut", 0.0)
    assert wire.sent == []
    for number in range(1000):
        peer.receive(ask, "busy", number * 0.001)
    assert 10 <= len(wire.sent) <= 31
    assert {(to, len(data)) for _, to, data in wire.sent} == {("busy", HELLO_BYTES)}
    assert peer.counters["throttled"] == 1000 - len(wire.sent)
    wire.sent.clear()
    peer.receive(ask, "quiet", 1.0)
    assert [to for _, to, _ in wire.sent] == ["quiet"]


def test_the_limit_forgets_sources_and_grows_no_further():
    limit = AnswerLimit(per_s=2, burst=3, sources=50)
    assert sum(limit.allows("one", 0.0) for _ in range(10)) == 3
    assert sum(limit.allows("one", 1.0) for _ in range(10)) == 2
    for source in range(10_000):
        assert limit.allows(source, 1.0)
    assert len(limit._left) == 50


def test_two_listeners_cannot_be_set_on_each_other(options):
    wire = Wire(options, options)
    wire.caller.place = "nobody"
    other = Wire(listener=options).listener
    other.place, wire.sides = "other", [wire.listener, other]
    other.peer._send = lambda data, to: wire.sent.append(("other", to, data))
    wire.listener.peer.receive(pack_hello(7, MODEL, b"s" * 16, bytes(16), options.get("secret")), "other", 0.0)
    assert len(wire.sent) == 1
    wire.run(1)
    assert len(wire.seen) == 1
    assert not wire.listener.peer.connected
    assert not other.peer.connected


def test_datagrams_sent_back_to_their_sender_do_nothing(options):
    wire = Wire(options, options)
    for seconds in (TICK_S, 2 * TICK_S, 1.0):
        wire.run(seconds)
        for side, other in ((wire.caller, wire.listener), (wire.listener, wire.caller)):
            before = held(side.peer), side.peer.counters["media"], side.peer.counters["hello"]
            for source, _, data in list(wire.seen):
                if source == side.place:
                    side.peer.receive(data, other.place, wire.now_s)
            assert (held(side.peer), side.peer.counters["media"], side.peer.counters["hello"]) == before
    assert wire.caller.peer.connected


def test_an_answer_replayed_from_elsewhere_does_not_keep_the_true_listener_out(options):
    wire = Wire(options, options)
    wire.caller.pump(0.01)
    wire.deliver()
    (_, _, answer), *_ = wire.sent
    wire.caller.peer.receive(answer, "attacker", 0.02)  # faster than the listener's own
    assert wire.caller.peer.address == "attacker"
    wire.run(1)
    assert wire.caller.peer.address == "listener"
    assert wire.listener.peer.counters["media"] > 50
    assert wire.caller.peer.counters["media"] > 50


def test_an_answer_replayed_as_if_from_another_address_of_the_name_does_not_mute_an_encrypted_call():
    wire = Wire({**keyed(), "to": "listener", "alternatives": ("other address",)}, keyed())
    wire.caller.pump(0.01)
    wire.deliver()
    (_, _, answer), *_ = wire.sent
    wire.caller.peer.receive(answer, "other address", 0.02)
    wire.run(1)
    assert wire.caller.peer.address == "listener"
    assert wire.listener.peer.counters["media"] > 50
    assert wire.caller.peer.counters["media"] > 50


@pytest.mark.parametrize(
    ("ours", "theirs", "told_caller", "told_listener"),
    [
        (SECRET, bytes(32), "uses another key", "uses another key"),
        (SECRET, SECRET + b" ", "uses another key", "uses another key"),
        (SECRET, None, "uses no key and this one has one", "uses a key and this one has none"),
        (None, SECRET, "uses a key and this one has none", "uses no key and this one has one"),
    ],
)
def test_keys_that_differ_are_said_on_both_sides_and_the_caller_ends(ours, theirs, told_caller, told_listener):
    keyed()
    wire = Wire({"secret": ours}, {"secret": theirs}).run(1)
    assert told_caller in wire.caller.peer.refusal
    assert told_listener in wire.listener.peer.refusal
    assert all("same --key FILE" in side.peer.refusal for side in wire.sides)
    assert wire.caller.peer.report()["refusal"] == wire.caller.peer.refusal
    assert not wire.caller.peer.ended
    wire.run(5)
    assert wire.caller.peer.ended
    assert not any(side.peer.connected or side.peer.calls for side in wire.sides)


def test_a_listener_says_nothing_of_a_key_that_only_a_forged_address_brought():
    wire = Wire(listener=keyed())
    peer = wire.listener.peer
    peer.pump(0.0)
    for secret in (None, bytes(32)):
        for echo in (bytes(16), b"e" * 16):
            peer.receive(pack_hello(7, b"otherone", b"s" * 16, echo, secret), "caller", 0.0)
    assert peer.refusal == ""
    wire.sent.clear()
    wire.caller.peer.secret = SECRET
    wire.run(1)
    assert peer.connected


def test_a_refusal_is_forgotten_once_the_right_listener_answers():
    wire = Wire(keyed(), keyed(bytes(32))).run(1)
    assert wire.caller.peer.refusal
    wire.listener.peer.secret = SECRET
    wire.run(1)
    assert wire.caller.peer.connected
    assert wire.caller.peer.refusal == wire.listener.peer.refusal == ""
    wire.run(8)
    assert wire.caller.peer.connected


@pytest.mark.parametrize("mover", ["caller", "listener"])
def test_an_encrypted_call_follows_sealed_datagrams_to_a_new_place_and_a_recording_does_not_move_it(mover):
    wire = Wire(keyed(), keyed()).run(1)
    side, other = (wire.caller, wire.listener) if mover == "caller" else (wire.listener, wire.caller)
    old = wire.said_by(side, MEDIA_TYPE)
    late = side.peer.outgoing.pack(side.peer._ssrc, bytes(10), 0.0, marker=False)  # on its way while the port changes
    side.place = "new port"
    heard, back = other.peer.counters["media"], side.peer.counters["media"]
    wire.run(1)
    assert other.peer.address == "new port"
    assert other.peer.counters["media"] > heard + 70
    assert side.peer.counters["media"] > back + 70
    heard = other.peer.counters["media"]
    for data in old:
        other.peer.receive(data, mover, wire.now_s)
        other.peer.receive(data, "attacker", wire.now_s)
        other.peer.receive(bytes((data[0], data[1], data[2] ^ 1)) + data[3:], "attacker", wire.now_s)
    assert (other.peer.address, other.peer.counters["media"]) == ("new port", heard)
    other.peer.receive(late, mover, wire.now_s)
    assert (other.peer.address, other.peer.counters["media"]) == ("new port", heard + 1)
    wire.run(6)
    assert side.peer.connected
    assert other.peer.connected


@pytest.mark.parametrize("mover", ["caller", "listener"])
def test_a_plain_call_follows_to_a_new_place_with_the_echo_and_with_nothing_else(mover):
    wire = Wire().run(1)
    side, other = (wire.caller, wire.listener) if mover == "caller" else (wire.listener, wire.caller)
    side.place = "new port"
    wire.run(0.5)
    assert other.peer.address == mover  # media alone prove nothing
    wire.run(1.5)
    assert other.peer.address == "new port"
    heard, back = other.peer.counters["media"], side.peer.counters["media"]
    wire.run(1)
    assert other.peer.counters["media"] > heard + 70
    assert side.peer.counters["media"] > back + 70
    for source, to, data in list(wire.seen):
        if source in (mover, "new port") and to == other.place:
            other.peer.receive(data, "attacker", wire.now_s)
            other.peer.receive(data, mover, wire.now_s)
    assert other.peer.address == "new port"
    side.place = "third port"
    wire.run(2)
    assert other.peer.address == "third port"
    assert wire.caller.peer.calls == wire.listener.peer.calls == 1


def test_a_router_that_changes_the_port_during_the_set_up_does_not_end_it(options):
    for ticks in (1, 2, 3):
        wire = Wire(options, options)
        wire.caller.pump(TICK_S)
        for _ in range(ticks):
            wire.deliver()
        wire.caller.place = "new port"
        wire.run(3)
        assert wire.listener.peer.address == "new port"
        heard = wire.listener.peer.counters["media"], wire.caller.peer.counters["media"]
        wire.run(1)
        assert wire.listener.peer.counters["media"] > heard[0] + 70
        assert wire.caller.peer.counters["media"] > heard[1] + 70


@pytest.mark.parametrize("lost", range(6))
def test_any_datagram_of_the_set_up_may_be_lost(options, lost):
    wire, count = Wire(options, options), iter(range(10_000))
    wire.run(1.5, through=lambda *_: next(count) != lost)
    assert wire.caller.peer.counters["media"] > 50
    assert wire.listener.peer.counters["media"] > 50
    assert wire.caller.peer.calls == wire.listener.peer.calls == 1


def test_a_caller_ends_when_nobody_answers_and_when_the_other_side_died(options):
    alone = Wire(options, options)
    alone.run(29, through=lambda *_: False)
    assert not alone.caller.peer.ended
    alone.run(2, through=lambda *_: False)
    assert alone.caller.peer.ended
    sent = len(alone.seen)
    alone.run(2)
    assert len(alone.seen) == sent
    wire = Wire(options, options).run(1)
    wire.run(4.5, through=lambda *_: False)
    assert not wire.caller.peer.ended
    wire.run(1, through=lambda *_: False)
    assert wire.caller.peer.ended
    assert not wire.listener.peer.connected
    assert not wire.listener.peer.ended
    before = held(wire.caller.peer), held(wire.listener.peer)
    for source, to, data in list(wire.seen):  # of the call that is over
        side = wire.caller if to == "caller" else wire.listener
        side.peer.receive(data, source, wire.now_s)
    assert (held(wire.caller.peer), held(wire.listener.peer)) == before


def test_a_listener_that_starts_again_during_the_set_up_still_gets_the_call(options):
    wire = Wire(options, options)
    wire.caller.pump(TICK_S)
    wire.deliver()
    wire.deliver()
    assert wire.caller.peer.connected
    wire.listener.peer._renew()
    wire.run(1)
    assert wire.listener.peer.counters["media"] > 50
    assert wire.caller.peer.counters["media"] > 50


def test_every_place_of_the_one_to_call_is_greeted_in_turn(options):
    places = ("closed", "nowhere", "listener")
    wire = Wire({**options, "to": places[0], "alternatives": places[1:]}, options).run(1)
    assert [to for source, to, _ in wire.seen if source == "caller"][:3] == list(places)
    assert wire.caller.peer.address == "listener"
    assert wire.listener.peer.counters["media"] > 20


RANDOM = bytes((200, 10, 13, 32)) * 8
TEXT = b"correct horse battery staple, 9 times"


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (TEXT + b"\n", TEXT),
        (TEXT + b"\r\n", TEXT),
        (TEXT + b" \t\r\n\r\n", TEXT),
        (b"\xef\xbb\xbf" + TEXT + b"\n", TEXT),
        (b"\xff\xfe" + TEXT.decode().encode("utf-16-le") + b"\r\0\n\0", TEXT),
        (b"\xfe\xff" + TEXT.decode().encode("utf-16-be"), TEXT),
        (b"first half of it, \r\nsecond half of it\r\n", b"first half of it,\nsecond half of it"),
        (b" " + TEXT, b" " + TEXT),
        ("ß".encode() * 16 + b"\n", "ß".encode() * 16),
        (RANDOM, RANDOM),
        (RANDOM + b"\n", RANDOM + b"\n"),
        (bytes(31) + b"\n", bytes(31) + b"\n"),
        (b"\xff\xfe" + RANDOM, b"\xff\xfe" + RANDOM),
    ],
)
def test_what_editors_change_in_a_text_is_no_part_of_the_key_and_random_bytes_are_all_of_it(tmp_path, content, secret):
    keyed()
    (tmp_path / "key").write_bytes(content)
    assert load_key(tmp_path / "key") == secret


@pytest.mark.parametrize(
    ("content", "says"), [(b" " * 40 + b"\n", "holds 0 bytes, without"), (b"x" * 31 + b"\n", "31 bytes"),
                          (b"x" * 5000, "more than 4096 bytes"), (b"", "0 bytes;")]
)  # fmt: skip
def test_a_key_file_without_enough_in_it_is_refused_by_what_counts(tmp_path, content, says):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load_key(tmp_path / "key")
