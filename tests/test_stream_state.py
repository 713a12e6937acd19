"""A stream's state: impossible ones are refused, copies go on bit for bit, and one thread at a time is let in."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import SMALL, small_checkpoint

from streamcodec import Codec, Decoder, Encoder
from streamcodec.engine import Engine
from streamcodec.errors import AudioError, BackendError, BusyError

HOP = SMALL.hop_samples
WAVE = np.random.default_rng(0).uniform(-1, 1, 4 * HOP + 100).astype(np.float32)


@pytest.fixture(scope="module", params=["cpu", "torch"])
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    if request.param == "torch":
        pytest.importorskip("torch", reason="the torch engine needs torch")
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    small_checkpoint(path)
    return Codec.load(path, backend=request.param)


def in_the_middle(codec: Codec) -> tuple[Encoder, Decoder]:
    """Streams with samples that wait, and with a fade that has begun."""
    encoder, decoder = codec.encoder(codec.config.max_bitrate_bps), codec.decoder()
    for packet in [*encoder.push(WAVE), *[None] * 6]:
        decoder.decode(packet)
    return encoder, decoder


def onwards(encoder: Encoder, decoder: Decoder) -> tuple[list[bytes], list[bytes]]:
    """Packets and sound that follow."""
    packets = [*encoder.push(WAVE), *encoder.flush()]
    return packets, [decoder.decode(packet).tobytes() for packet in [None, *packets]]


# from the end: Encoder, waiting samples, then their count; Decoder, lost frames, then 1 - gain
IMPOSSIBLE = {
    "encoder": [
        *((-1, count) for count in (-1.0, 0.5, HOP, 2.0**24, 3e38, np.nan, np.inf, -np.inf)),
        *((-2, sample) for sample in (1.5, -2.0, np.nan)),
        *((-1 - HOP, sample) for sample in (1.001, np.inf)),
        *((0, value) for value in (np.nan, np.inf, -np.inf, 3e38, -1e30)),
        (-2 - HOP, np.nan),
    ],
    "decoder": [
        *((-2, count) for count in (-1.0, 0.5, 13.0, 1e9, np.nan, np.inf)),
        *((-1, fade) for fade in (-0.125, 0.125, 2.0, np.nan, -np.inf)),
        *((0, value) for value in (np.nan, np.inf, 3e38)),
        (-3, -np.inf),
    ],
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_impossible_state_is_refused_and_changes_nothing(codec: Codec, kind: str) -> None:
    stream = in_the_middle(codec)[kind == "decoder"]
    before = stream.state.copy()
    for at, value in IMPOSSIBLE[kind]:
        wrong = before.copy()
        wrong[at] = value
        with pytest.raises(AudioError, match=r"state holds .* restore only what the same kind of stream"):
            stream.state = wrong
        assert np.array_equal(stream.state, before)


def test_fade_that_does_not_follow_from_the_lost_frames_is_refused(codec: Codec) -> None:
    decoder = codec.decoder()
    for _ in range(14):  # every state that loss leads to is taken
        decoder.decode(None)
        decoder.state = decoder.state.copy()
    wrong = decoder.state.copy()
    wrong[-2] = 11
    with pytest.raises(AudioError, match=r"holds a fade of 1; after 11 lost frames it is 0\.875"):
        decoder.state = wrong


@pytest.mark.parametrize("value", [None, 0, "state", [], [[1.0], [1.0, 2.0]], {}, np.zeros(3, object)])
def test_what_is_no_array_is_no_state(codec: Codec, value: Any) -> None:
    for stream in in_the_middle(codec):
        with pytest.raises(AudioError, match="this stream's is float32"):
            stream.state = value


@pytest.mark.parametrize("count", [1e9, -5.0, HOP + 1.0, HOP, np.nan, np.inf])
def test_waiting_samples_written_into_the_state_are_refused_where_they_are_used(codec: Codec, count: float) -> None:
    encoder = codec.encoder(codec.config.max_bitrate_bps)
    encoder.state[-1] = count
    for use in (lambda: encoder.push(WAVE), lambda: encoder.encode(WAVE[:HOP]), encoder.flush):
        with pytest.raises(AudioError, match="waiting samples"):
            use()
    encoder.reset()
    assert len(encoder.push(WAVE)) == 4


@pytest.mark.parametrize("at", [0, -2, -1])
def test_no_sound_that_is_not_finite_comes_from_a_state_that_was_written_to(codec: Codec, at: int) -> None:
    decoder = codec.decoder()
    decoder.state[at] = np.nan
    frames = 80  # until the oldest row of the history has been read
    with pytest.raises(AudioError, match=r"state makes sound that is not finite|state fades from .*nan"):
        assert np.isfinite([decoder.decode(None) for _ in range(frames)]).all()
    decoder.reset()
    assert np.isfinite(decoder.decode(None)).all()


WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda stream: pickle.loads(pickle.dumps(stream)),
}


@pytest.mark.parametrize("way", WAYS)
def test_copies_go_on_bit_for_bit_and_alone(codec: Codec, way: str) -> None:
    streams = in_the_middle(codec)
    twins = [WAYS[way](stream) for stream in streams]
    others = [WAYS[way](twin) for twin in twins]
    expected = onwards(*streams)
    assert onwards(*twins) == expected
    assert onwards(*others) == expected
    assert (twins[0].codec is codec) == (way != "pickle")


@pytest.mark.parametrize("way", WAYS)
def test_copied_codec_codes_alike_and_its_weights_are_kept_once(codec: Codec, way: str) -> None:
    twin = WAYS[way](codec)
    assert (twin.model_id, twin.config, twin.engine.name) == (codec.model_id, codec.config, codec.engine.name)
    assert onwards(*in_the_middle(twin)) == onwards(*in_the_middle(codec))
    weights = sum(array.nbytes for array in codec._checkpoint.arrays.values())
    assert len(pickle.dumps(twin)) < 1.1 * weights + 20_000


def from_the_middle(streams: tuple[Encoder, Decoder], answers: Any) -> None:
    answers.put(onwards(*streams))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", [name for name in multiprocessing.get_all_start_methods() if name != "forkserver"])
def test_streams_go_on_in_another_process(codec: Codec, method: str) -> None:
    context = multiprocessing.get_context(method)
    streams, answers = in_the_middle(codec), context.Queue()
    process = context.Process(target=from_the_middle, args=(streams, answers), daemon=True)
    process.start()
    assert answers.get(timeout=120) == onwards(*streams)
    process.join(60)
    assert process.exitcode == 0


class WaitingEngine:
    """An engine that stops in the middle of a step until it is let go on."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.begun, self.go_on = engine, threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def _wait(self) -> None:
        self.begun.set()
        assert self.go_on.wait(60)

    def encode_step(self, *arrays: np.ndarray) -> None:
        self._wait()
        self.engine.encode_step(*arrays)

    def decode_step(self, *arrays: np.ndarray) -> None:
        self._wait()
        self.engine.decode_step(*arrays)


def while_used(
    codec: Codec, use: Callable[[Encoder, Decoder], Any], tries: Callable[[Encoder, Decoder], list[Callable[[], Any]]]
) -> Any:
    """What `use` gives in a thread of its own, amid which each of `tries` is refused."""
    engine, answers = WaitingEngine(codec.engine), []
    encoder, decoder = (
        Codec(codec._checkpoint, engine).encoder(codec.config.max_bitrate_bps),
        Codec(codec._checkpoint, engine).decoder(),
    )
    thread = threading.Thread(target=lambda: answers.append(use(encoder, decoder)))
    thread.start()
    assert engine.begun.wait(60)
    try:
        for attempt in tries(encoder, decoder):
            with pytest.raises(BusyError, match="in use by another thread; give each thread its own"):
                attempt()
    finally:
        engine.go_on.set()
        thread.join(60)
    return answers[0]


def test_second_thread_is_refused_and_the_first_is_not_disturbed(codec: Codec) -> None:
    frame = WAVE[:HOP]
    packet = codec.encoder(codec.config.max_bitrate_bps).encode(frame)
    heard = codec.decoder().decode(packet)

    def encoding(encoder: Encoder, _: Decoder) -> list[Callable[[], Any]]:
        return [
            lambda: encoder.encode(frame),
            lambda: encoder.push(frame),
            encoder.flush,
            encoder.reset,
            lambda: setattr(encoder, "state", encoder.state.copy()),
            lambda: copy.copy(encoder),
            lambda: pickle.dumps(encoder),
        ]

    def decoding(_: Encoder, decoder: Decoder) -> list[Callable[[], Any]]:
        return [
            lambda: decoder.decode(packet),
            lambda: decoder.decode(None),
            decoder.reset,
            lambda: setattr(decoder, "state", decoder.state.copy()),
            lambda: copy.deepcopy(decoder),
        ]

    assert while_used(codec, lambda encoder, _: encoder.encode(frame), encoding) == packet
    assert while_used(codec, lambda encoder, _: encoder.push(frame), encoding) == [packet]
    assert np.array_equal(while_used(codec, lambda _, decoder: decoder.decode(packet), decoding), heard)


def test_bitrate_set_by_another_thread_counts_from_the_next_frame_on(codec: Codec) -> None:
    frame = WAVE[:HOP]
    packet = codec.encoder(codec.config.max_bitrate_bps).encode(frame)

    def lower(encoder: Encoder, _: Decoder) -> list[Callable[[], Any]]:
        encoder.bitrate_bps = codec.config.bitrate_step_bps
        return []

    assert while_used(codec, lambda encoder, _: encoder.encode(frame), lower) == packet


def test_stream_refused_to_one_thread_serves_it_later(codec: Codec) -> None:
    encoder, decoder = in_the_middle(codec)
    expected = onwards(copy.copy(encoder), copy.copy(decoder))
    with pytest.raises(AudioError):
        encoder.encode(WAVE)
    with pytest.raises(ValueError, match="packet"):
        decoder.decode(b"")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(onwards(encoder, decoder)))
    thread.start()
    thread.join(60)
    assert answers == [expected]


def test_batch_is_for_one_thread_and_says_that_it_cannot_be_copied(codec: Codec, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="batches need torch")
    batch = codec.batch(2, device="cpu", bitrate_bps=codec.config.max_bitrate_bps)
    slot = batch.join()
    for way in WAYS.values():
        with pytest.raises(BackendError, match="cannot be copied or pickled; make another there"):
            way(batch)
    begun, go_on, launch = threading.Event(), threading.Event(), batch._launch

    def waits() -> None:
        begun.set()
        assert go_on.wait(60)
        launch()

    batch._launch = waits
    thread = threading.Thread(target=batch.step)
    thread.start()
    assert begun.wait(60)
    try:
        for attempt in (batch.step, batch.join, lambda: batch.leave(slot), lambda: batch.receive(slot, None)):
            with pytest.raises(BusyError, match="this StreamBatch is in use by another thread"):
                attempt()
    finally:
        go_on.set()
        thread.join(60)
    assert batch.joined.tolist() == [True, False]
    assert len(batch.packet(slot)) == codec.config.packet_bytes(codec.config.n_codebooks)


FORK = """
import os, sys
import numpy as np
from small_models import small_checkpoint
from streamcodec import Codec
small_checkpoint(sys.argv[1])
codec = Codec.load(sys.argv[1])
batch = codec.batch(40, device="cpu", bitrate_bps=codec.config.max_bitrate_bps)
slots = [batch.join() for _ in range(40)]
frames = np.random.default_rng(0).uniform(-1, 1, (40, codec.frame_samples)).astype(np.float32)
batch.step(frames)  # torch's threads begin
child = os.fork()
batch.step(frames)
os.write(1, (b"".join(map(batch.packet, slots)).hex() + "\\n").encode())
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_batch_goes_on_in_a_forked_process(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="batches need torch")
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path / "small.safetensors")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = (np.frombuffer(bytes.fromhex(line), np.uint8) for line in done.stdout.split())
    assert np.mean(ours == theirs) > 0.9  # sums on one thread may be rounded otherwise
