"""Many streams at once on one device: each is the stream it would be alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a batch needs torch")

from batch_streams import (  # noqa: E402
    NARROW,
    check_independence,
    check_random_lives,
    check_speech,
    codec_decode,
    drawn_codec,
    narrow_batch,
    speech,
)
from small_models import STRIDED  # noqa: E402

from streamcodec import (  # noqa: E402
    AudioError,
    BackendError,
    BitrateError,
    BitstreamError,
    Codec,
    CorruptStream,
    MissingExtraError,
    SlotError,
)
from streamcodec.engine.batch import UNUSED, StreamBatch  # noqa: E402
from streamcodec.engine.fade import FADE_FRAMES, HOLD_FRAMES  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return drawn_codec(NARROW)


def test_streams_that_come_and_go_equal_streams_alone(codec: Codec) -> None:
    assert check_random_lives(narrow_batch(codec, 5), codec, 200) == 0


def test_streams_of_a_shape_that_reads_by_strides_equal_streams_alone() -> None:
    codec = drawn_codec(STRIDED)
    assert check_random_lives(narrow_batch(codec, 4), codec, 60) == 0


def test_real_speech_makes_the_codes_of_the_cpu_engine() -> None:
    check_speech(Codec.load().batch(4, device="cpu"), [1500, 6000, 9000], frames=50)


def test_a_stream_depends_on_no_neighbour_and_no_slot(codec: Codec) -> None:
    check_independence(narrow_batch(codec, 6), speech(codec, 12, 5000))


def test_a_long_loss_fades_out_and_comes_back_as_in_a_decoder_alone(codec: Codec) -> None:
    batch, decoder = narrow_batch(codec, 2, mode="decode"), codec.decoder()
    slot, codes = batch.join(), np.array([3, 7, UNUSED, UNUSED], np.int16)
    levels = []
    for f in range(HOLD_FRAMES + FADE_FRAMES + 9):
        lost = 3 <= f < HOLD_FRAMES + FADE_FRAMES + 5
        batch.received[slot] = codes
        heard = batch.step(lost=np.array([lost, True])).heard[slot]
        np.testing.assert_allclose(heard, codec_decode(decoder, None if lost else codes), atol=2e-5)
        levels.append(np.abs(heard).max())
    assert levels[HOLD_FRAMES + FADE_FRAMES + 4] == 0
    assert min(levels[1], levels[-1]) > 1e-3


def test_one_way_equals_both_ways(codec: Codec) -> None:
    both, *ways = (narrow_batch(codec, 3, mode=mode) for mode in ("duplex", "encode", "decode"))
    frames = speech(codec, 4, 5000)
    for batch in (both, *ways):
        assert [batch.join(), batch.join(batch.config.bitrate_step_bps)] == [0, 1]
    for f in range(4):
        spoken = np.stack([frames[f]] * 3)
        sent = ways[0].codes.copy()
        codes, heard = both.step(spoken, sent)
        np.testing.assert_array_equal(ways[0].step(frames=spoken).codes, codes)
        np.testing.assert_array_equal(ways[1].step(codes=sent).heard, heard)
    assert ways[0].heard.size == ways[1].codes.size == 0
    with pytest.raises(AudioError, match=r"received are int16 \(3, 4\); give int16 \(3, 0\)"):
        ways[0].step(codes=both.codes)


def test_packets_are_those_of_live_streams(codec: Codec) -> None:
    batch, encoder, decoder = narrow_batch(codec, 2), codec.encoder(64_000), codec.decoder()
    slot = batch.join()
    assert batch.bitrate_bps(slot) == 64_000
    packet = None
    for frame in speech(codec, 3, 5000):
        batch.frames[slot] = frame
        batch.receive(slot, packet)
        heard = batch.step().heard[slot]
        np.testing.assert_allclose(heard, decoder.decode(packet), atol=2e-5)
        packet = batch.packet(slot)
        assert packet == encoder.encode(frame)
    with pytest.raises(BitstreamError, match="this model makes at most 4"):
        batch.receive(slot, bytes(5))


def test_what_is_not_given_is_lost(codec: Codec) -> None:
    batch, decoder = narrow_batch(codec, 1, mode="decode"), codec.decoder()
    slot, codes = batch.join(), np.array([[1, 2, 3, UNUSED]], np.int16)
    np.testing.assert_allclose(batch.step(codes=codes).heard[slot], codec_decode(decoder, codes[0]), atol=2e-5)
    np.testing.assert_allclose(batch.step().heard[slot], decoder.decode(None), atol=2e-5)


def test_samples_are_clamped_and_what_is_not_finite_is_silence(codec: Codec) -> None:
    batch = narrow_batch(codec, 2, mode="encode")
    batch.join(), batch.join()
    wild = np.array([9, -9, np.nan, np.inf, -np.inf, 0.5], np.float32)
    tame = np.array([1, -1, 0, 0, 0, 0.5], np.float32)
    codes = batch.step(frames=np.stack([wild, tame])).codes
    np.testing.assert_array_equal(codes[0], codes[1])
    assert batch._steps.encoder_state.isfinite().all()  # type: ignore[attr-defined]


def test_nothing_moves_when_streams_come_and_go(codec: Codec) -> None:
    batch = narrow_batch(codec, 3)

    def places() -> list[int]:
        arrays = (batch.frames, batch.received, batch.codes, batch.heard)
        states = (batch._steps.encoder_state, batch._steps.decoder_state)  # type: ignore[attr-defined]
        return [array.ctypes.data for array in arrays] + [state.data_ptr() for state in states]

    before = places()
    for _ in range(3):
        batch.join()
    batch.step()
    batch.leave(1)
    batch.reset(2)
    batch.step(np.zeros_like(batch.frames), batch.codes.copy())
    assert batch.join() == 1
    assert places() == before
    assert batch.joined.all()


def test_slots_and_bitrates_are_checked(codec: Codec) -> None:
    batch = narrow_batch(codec, 2)
    with pytest.raises(SlotError, match=r"no stream is in slot 0; join\(\) gives a slot from 0 to 1"):
        batch.reset(0)
    with pytest.raises(BitrateError):
        batch.join(5)
    assert [batch.join(), batch.join()] == [0, 1]
    with pytest.raises(SlotError, match="all 2 slots are taken"):
        batch.join()
    for slot in (-1, 2):
        with pytest.raises(SlotError):
            batch.leave(slot)
    with pytest.raises(BitrateError):
        batch.set_bitrate(0, 1)


@pytest.mark.parametrize("row", [[256, -1, -1, -1], [-2, -1, -1, -1], [1, -1, 2, -1]], ids=["high", "low", "hole"])
def test_wrong_codes_are_refused_before_any_stream_advances(codec: Codec, row: list[int]) -> None:
    batch = narrow_batch(codec, 2, mode="decode")
    slot = batch.join()
    batch.received[slot] = row
    with pytest.raises(CorruptStream, match="slot 0 received codes"):
        batch.step()
    assert not batch._steps.decoder_state.any()  # type: ignore[attr-defined]
    batch.received[:] = [UNUSED] * 4, row
    batch.step()  # nobody is in slot 1


@pytest.mark.parametrize(
    "given",
    [
        {"frames": np.zeros((2, 5), np.float32)},
        {"frames": np.zeros((2, 6))},
        {"codes": np.zeros((2, 4), np.int64)},
        {"lost": np.zeros(3, np.bool_)},
        {"advance": np.zeros(2, np.int8)},
    ],
    ids=["length", "float64", "int64", "mask length", "mask type"],
)
def test_wrong_arrays_are_refused(codec: Codec, given: dict[str, np.ndarray]) -> None:
    with pytest.raises(AudioError, match="give"):
        narrow_batch(codec, 2).step(**given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "both"}, "mode 'both' is unknown"),
        ({"streams": 0}, "give at least 1"),
        ({"device": "tpu"}, "device 'tpu' is unknown; choose one of cpu, cuda"),
        ({"backend": "numba"}, "choose one of auto, torch, triton"),
        ({"precision": "int8"}, "choose one of ieee, tf32x3, tf32"),
        ({"precision": "tf32"}, "needs 'triton'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_batch_that_cannot_be_says_why(codec: Codec, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        narrow_batch(codec, **{"streams": 2, **arguments})  # type: ignore[arg-type]


def test_what_cannot_run_here_is_refused(codec: Codec) -> None:
    looks_ahead = replace(NARROW, causal=False, depthwise=False)
    with pytest.raises(BackendError, match="cannot stream"):
        StreamBatch(looks_ahead, {}, 2, bitrate_bps=32_000, device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="device cuda: torch finds no GPU; choose device='cpu'"):
            narrow_batch(codec, 2, device="cuda")
    pytest.importorskip("triton", reason="the Triton backend needs triton")
    with pytest.raises(BackendError, match="does not run on device 'cpu'; choose backend='torch'"):
        narrow_batch(codec, 2, device="cpu", backend="triton")


def test_without_torch_the_extra_is_named(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "streamcodec.engine.batch")
    with pytest.raises(MissingExtraError, match=r"torch is not installed; .*streamcodec\[gpu\]"):
        narrow_batch(codec, 2)
