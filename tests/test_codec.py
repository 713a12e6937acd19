"""The two calls that a voice app makes: any chunking, any loss, any mistake."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import SMALL, small_checkpoint

from streamcodec import Codec
from streamcodec.bitstream import unpack_codes
from streamcodec.checkpoint import load_checkpoint
from streamcodec.engine.select import create_engine
from streamcodec.errors import AudioError, BackendError, BitrateError, BitstreamError, CorruptStream, TruncatedStream

CONFIG = replace(SMALL, codebook_size=1024)
STEP_BPS, HOP, FRAMES = 750, 320, 9


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    small_checkpoint(path, config=CONFIG)
    return path


@pytest.fixture(scope="module", params=["torch", "cpu"])
def codec(request: pytest.FixtureRequest, weights: Path) -> Codec:
    if request.param == "torch":
        pytest.importorskip("torch", reason="the torch engine needs torch")
    return Codec.load(weights, backend=request.param)


def sound(frames: int = FRAMES, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal(frames * HOP)).clip(-1, 1).astype(np.float32)


def packets_of(codec: Codec, wave: np.ndarray, kbps: float = 3) -> list[bytes]:
    encoder = codec.encoder(1000 * kbps)
    return [encoder.encode(frame) for frame in wave.reshape(-1, HOP)]


def test_codec_says_what_it_is(codec: Codec, weights: Path) -> None:
    assert (codec.sample_rate_hz, codec.frame_samples) == (24_000, HOP)
    assert codec.model_id == load_checkpoint(weights).model_id
    assert [len(packets_of(codec, sound(1), k * 0.75)[0]) for k in (1, 2, 3, 4)] == [2, 3, 4, 5]


@pytest.mark.parametrize("chunk", [1, 7, 320, 1000, FRAMES * HOP])
def test_chunks_of_any_length_give_the_packets_of_the_whole(codec: Codec, chunk: int) -> None:
    wave, encoder = sound(), codec.encoder(3000)
    packets = [p for at in range(0, len(wave), chunk) for p in encoder.push(wave[at : at + chunk])]
    assert packets == packets_of(codec, wave)
    assert encoder.pending_samples == 0
    assert encoder.flush() == []


def test_what_does_not_fill_a_frame_waits_and_is_flushed_with_silence(codec: Codec) -> None:
    wave = sound(3)[: 2 * HOP + 100]
    encoder = codec.encoder(3000)
    packets = encoder.push(wave)
    assert (len(packets), encoder.pending_samples) == (2, 100)
    with pytest.raises(AudioError, match=r"100 pushed samples still wait; .* flush\(\) first"):
        encoder.encode(wave[:HOP])
    packets += encoder.flush()
    assert packets == packets_of(codec, np.concatenate([wave, np.zeros(HOP - 100, np.float32)]))


def test_tokens_are_the_packets_codes_and_decode_to_the_same_sound(codec: Codec) -> None:
    wave = sound()
    codes = codec.tokenize(wave)
    assert (codes.dtype, codes.shape) == (np.int16, (4, FRAMES))
    packets = packets_of(codec, wave)
    assert np.array_equal(codes, np.stack([unpack_codes(packet, 10) for packet in packets], 1))
    assert np.array_equal(codec.tokenize(wave, 1500), codes[:2])
    assert np.array_equal(codec.tokenize(wave[: 2 * HOP + 1])[:, :2], codes[:, :2])
    assert codec.tokenize(wave[: 2 * HOP + 1]).shape == (4, 3)
    decoder = codec.decoder()
    made = np.concatenate([decoder.decode(packet) for packet in packets])
    assert (made.dtype, made.shape) == (np.float32, wave.shape)
    assert np.array_equal(codec.detokenize(codes), made)
    assert np.array_equal(codec.detokenize(codes.astype(np.int64)), made)
    assert codec.detokenize(codes[:, :0]).shape == (0,)


def test_bitrate_may_change_between_frames(codec: Codec) -> None:
    wave, encoder, decoder = sound(), codec.encoder(750), codec.decoder()
    full = [unpack_codes(packet, 10) for packet in packets_of(codec, wave)]
    for i, frame in enumerate(wave.reshape(-1, HOP)):
        count = 1 + i % 4
        encoder.bitrate_bps = count * STEP_BPS
        packet = encoder.encode(frame)
        assert np.array_equal(unpack_codes(packet, 10), full[i][:count])
        assert np.isfinite(decoder.decode(packet)).all()
    assert encoder.bitrate_bps == STEP_BPS * (1 + (FRAMES - 1) % 4)
    with pytest.raises(BitrateError, match="choose a multiple of 750 from 750 to 3000"):
        encoder.bitrate_bps = 3750
    with pytest.raises(BitrateError):
        codec.encoder(1000)


def test_state_is_a_value_to_copy_restore_and_send_elsewhere(codec: Codec) -> None:
    wave = sound()
    expected = packets_of(codec, wave)
    encoder = codec.encoder(3000)
    encoder.push(wave[: 4 * HOP + 50])
    snapshot = pickle.dumps(encoder.state)
    rest = encoder.push(wave[4 * HOP + 50 :])
    assert rest == expected[4:]
    other = codec.encoder(3000)
    other.state = pickle.loads(snapshot)
    assert other.push(wave[4 * HOP + 50 :]) == expected[4:]

    decoder = codec.decoder()
    for packet in [*expected[:4], None, None, None, None, None]:
        decoder.decode(packet)
    kept = decoder.state.copy()
    first = [decoder.decode(packet) for packet in (None, *expected[4:])]
    assert decoder.state.shape == kept.shape
    assert not np.array_equal(decoder.state, kept)
    decoder.state = kept
    again = [decoder.decode(packet) for packet in (None, *expected[4:])]
    assert np.array_equal(first, again)


def test_reset_stream_is_a_new_stream(codec: Codec) -> None:
    wave = sound()
    expected = packets_of(codec, wave)
    encoder, decoder = codec.encoder(3000), codec.decoder()
    encoder.push(sound(5, seed=1)[:-1])
    for _ in range(6):
        decoder.decode(None)
    encoder.reset()
    decoder.reset()
    assert encoder.push(wave) == expected
    fresh = codec.decoder()
    assert all(np.array_equal(decoder.decode(p), fresh.decode(p)) for p in expected)


def test_state_of_another_kind_is_refused_and_changes_nothing(codec: Codec) -> None:
    encoder, decoder = codec.encoder(3000), codec.decoder()
    encoder.push(sound(1)[:-5])
    before = encoder.state.copy()
    for wrong in (decoder.state, before[:-1], before.astype(np.float64), before.reshape(1, -1), None):
        with pytest.raises(AudioError, match="restore only what the same kind of stream of the same model gave"):
            encoder.state = wrong
        assert np.array_equal(encoder.state, before)


def test_lost_packets_are_concealed_fade_out_and_come_back(codec: Codec) -> None:
    wave = sound(24)
    packets = packets_of(codec, wave)
    decoder, unfaded = codec.decoder(), codec.decoder()
    for packet in packets[:4]:
        decoder.decode(packet)
    unfaded.state = decoder.state
    lost = []
    for i in range(16):
        made = decoder.decode(None)
        lost.append(made)
        unfaded._own[:] = 0  # as if no loss had come before
        assert np.isfinite(made).all()
        plain = unfaded.decode(None)
        gain = np.interp(np.arange(HOP) / (HOP - 1), [0, 1], [1 - max(0, i - 4) / 8, 1 - max(0, i - 3) / 8]).clip(0, 1)
        np.testing.assert_allclose(made, plain * gain, atol=1e-6)
    assert np.array_equal(lost[-1], np.zeros(HOP, np.float32))
    back = decoder.decode(packets[4])
    assert back[0] == 0
    unfaded._own[:] = 0
    np.testing.assert_array_equal(back[-1:], unfaded.decode(packets[4])[-1:])
    np.testing.assert_array_equal(decoder.decode(packets[5]), unfaded.decode(packets[5]))


def test_loss_from_the_first_frame_on_is_finite_for_long(codec: Codec) -> None:
    decoder = codec.decoder()
    for _ in range(40):
        made = decoder.decode(None)
        assert np.isfinite(made).all()
    assert not made.any()
    assert np.isfinite(decoder.state).all()


GOOD = sound(1)
BAD_FRAMES = {
    "a list": ([0.0] * HOP, "samples are list; give a float32 array"),
    "None": (None, "samples are NoneType"),
    "float64": (GOOD.astype(np.float64), "samples are float64"),
    "int16": ((GOOD * 32767).astype(np.int16), "int16: divide by 32768"),
    "big endian": (GOOD.astype(">f4"), "samples are >f4"),
    "a column": (GOOD[:, None], r"shape \(320, 1\); give one channel"),
    "a scalar": (np.float32(0)[...], r"shape \(\)"),
    "short": (GOOD[:-1], r"a frame of 319 samples; give exactly 320, or use push\(\)"),
    "long": (sound(2), "a frame of 640 samples"),
    "empty": (GOOD[:0], "a frame of 0 samples"),
    "NaN": (np.where(np.arange(HOP) == 7, np.float32(np.nan), GOOD), "sample 7 is nan; only finite"),
    "infinite": (np.where(np.arange(HOP) == 9, np.float32(-np.inf), GOOD), "sample 9 is -inf; only finite"),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_frame_that_is_no_audio_is_refused_and_changes_nothing(codec: Codec, case: str) -> None:
    frame, text = BAD_FRAMES[case]
    encoder = codec.encoder(3000)
    encoder.encode(GOOD)
    before = encoder.state.copy()
    with pytest.raises(AudioError, match=text):
        encoder.encode(frame)
    if case not in ("short", "long"):
        with pytest.raises(AudioError):
            encoder.push(frame)
        with pytest.raises(AudioError):
            codec.tokenize(frame)
    assert np.array_equal(encoder.state, before)


def test_samples_beyond_full_scale_are_clamped(codec: Codec) -> None:
    loud = 5 * sound(2)
    before = loud.copy()
    assert packets_of(codec, loud) == packets_of(codec, loud.clip(-1, 1))
    assert np.array_equal(loud, before)


def test_views_and_read_only_arrays_are_taken_as_they_are(codec: Codec) -> None:
    wave = sound(2)
    expected = packets_of(codec, wave)
    read_only = np.frombuffer(wave.tobytes(), np.float32)
    assert packets_of(codec, read_only) == expected
    assert packets_of(codec, np.ascontiguousarray(wave[::-1])[::-1]) == expected
    encoder = codec.encoder(3000)
    stereo = np.stack([wave, wave], 1)
    assert [encoder.encode(frame) for frame in (stereo[:HOP, 0], wave[::-1].copy()[::-1][HOP:])] == expected
    codes = codec.tokenize(wave, 750)
    made = codec.detokenize(codes)
    codes.flags.writeable = False
    assert np.array_equal(codec.detokenize(codes), made)


@pytest.mark.parametrize(
    ("packet", "error", "text"),
    [
        (b"", TruncatedStream, "empty; a lost packet is decoded as None"),
        (b"\x00", BitstreamError, "1 byte"),
        (b"\x00\x01", CorruptStream, "bits of the packet must be zero"),
        (bytes(7), BitstreamError, "a packet of 7 bytes has 5 codes; this model makes at most 4"),
        (bytes(6), BitstreamError, "no packet .* 6 bytes"),
        (bytes(1000), BitstreamError, "1000 bytes"),
    ],
)
def test_packet_of_another_model_is_refused_and_changes_nothing(
    codec: Codec, packet: bytes, error: type, text: str
) -> None:
    decoder = codec.decoder()
    decoder.decode(packets_of(codec, GOOD)[0])
    decoder.decode(None)
    before = decoder.state.copy()
    with pytest.raises(error, match=text):
        decoder.decode(packet)
    assert np.array_equal(decoder.state, before)


def test_decoder_survives_random_packets(codec: Codec) -> None:
    rng, decoder = np.random.default_rng(0), codec.decoder()
    for _ in range(100):
        try:
            made = decoder.decode(rng.bytes(int(rng.integers(0, 12))))
        except BitstreamError:
            continue
        assert np.isfinite(made).all()


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((5, 3), np.int16),
        np.zeros((0, 3), np.int16),
        np.zeros(3, np.int16),
        np.zeros((1, 1, 1), np.int16),
        np.zeros((2, 3)),
        np.full((2, 3), 1024),
        np.full((2, 3), -1),
        np.full((2, 3), 65_536 + 5),
    ],
)
def test_tokens_out_of_range_are_refused(codec: Codec, codes: np.ndarray) -> None:
    with pytest.raises(CorruptStream, match=r"give integers|outside 0 to 1023"):
        codec.detokenize(codes)


def test_streams_of_one_engine_do_not_hear_each_other(codec: Codec) -> None:
    engine, waves = codec.engine, np.stack([sound(3, seed) for seed in range(3)])
    alone = np.stack([codec.tokenize(wave) for wave in waves])
    together = np.empty_like(alone)
    state = engine.encoder_state(3)
    codes = np.empty((3, 4), np.int16)
    for i in range(3):
        if i == 1:
            state[1] = 0  # its second frame becomes the first of a new stream
        engine.encode_step(waves[:, i * HOP : (i + 1) * HOP], state, codes)
        together[:, :, i] = codes
    assert np.array_equal(together[[0, 2]], alone[[0, 2]])
    assert np.array_equal(together[1, :, 1:], codec.tokenize(waves[1, HOP:]))
    made, state = np.empty((3, HOP), np.float32), engine.decoder_state(3)
    engine.decode_step(np.ascontiguousarray(alone[:, :, 0]), state, made)
    for stream in range(3):
        np.testing.assert_allclose(made[stream], codec.detokenize(alone[stream, :, :1]), atol=1e-6)


def test_engine_that_cannot_run_says_why(weights: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(weights)
    with pytest.raises(BackendError, match="backend 'gpu' is unknown; choose one of auto, cpu, torch"):
        create_engine(checkpoint, "gpu")
    with pytest.raises(BackendError, match="device 'tpu' is unknown; choose one of cpu, cuda"):
        create_engine(checkpoint, "auto", "tpu")
    with pytest.raises(BackendError, match="choose backend='torch'"):
        create_engine(checkpoint, "cpu", "cuda")
    torch = pytest.importorskip("torch", reason="the torch engine needs torch")
    if not torch.cuda.is_available():
        for backend in ("auto", "torch"):
            with pytest.raises(BackendError, match="torch finds no GPU; choose device='cpu'"):
                create_engine(checkpoint, backend, "cuda")
    looks_ahead = small_checkpoint(tmp_path / "dac.safetensors", config=replace(SMALL, causal=False, depthwise=False))
    for backend in ("cpu", "torch"):
        with pytest.raises(BackendError, match=r"cannot stream|causal"):
            create_engine(looks_ahead, backend)
