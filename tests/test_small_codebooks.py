"""Models of 2 to 128 codes a codebook: every packet that is made is taken, by decoders, batches and calls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_models import SMALL, small_checkpoint

from streamcodec import Codec
from streamcodec.bitstream import make_packet, read_packet
from streamcodec.errors import BitstreamError
from streamcodec.live.payload import Media

SIZES = (2, 8, 32, 128, 256)
FRAMES = np.random.default_rng(0).uniform(-1, 1, (3, SMALL.hop_samples)).astype(np.float32)


@pytest.fixture(scope="module", params=SIZES)
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    small_checkpoint(path, config=replace(SMALL, codebook_size=request.param, n_codebooks=9))
    return Codec.load(path)


def bitrates(codec: Codec) -> list[float]:
    return [count * codec.config.bitrate_step_bps for count in range(1, codec.config.n_codebooks + 1)]


def test_decoder_takes_every_packet_and_plays_its_codes(codec: Codec) -> None:
    wave = FRAMES.reshape(-1)
    for count, bitrate_bps in enumerate(bitrates(codec), start=1):
        decoder = codec.decoder()
        packets = codec.encoder(bitrate_bps).push(wave)
        assert {len(packet) for packet in packets} == {codec.config.packet_bytes(count)}
        codes = codec.tokenize(wave, bitrate_bps)
        heard = np.concatenate([decoder.decode(packet) for packet in packets])
        np.testing.assert_array_equal(heard, codec.detokenize(codes))


def test_more_codes_than_the_model_has_are_refused(codec: Codec) -> None:
    packet = make_packet(np.zeros(10, np.int16), codec.config.bits_per_code)
    with pytest.raises(BitstreamError, match="has 10 codes; this model makes at most 9"):
        codec.decoder().decode(packet)


def test_media_of_a_call_carries_packets_and_copies(codec: Codec) -> None:
    packets = codec.encoder(bitrates(codec)[-1]).push(FRAMES.reshape(-1))
    copies = codec.encoder(bitrates(codec)[1]).push(FRAMES.reshape(-1))
    media = Media(packets[2], 9, (copies[1], copies[0]), 2)
    parsed = Media.parse(media.pack(), codec.config)
    assert (parsed.packet, parsed.n_codebooks, parsed.copies) == (packets[2], 9, (copies[1], copies[0]))
    for packet in (parsed.packet, *parsed.copies):
        assert np.isfinite(codec.decoder().decode(packet)).all()
    with pytest.raises(BitstreamError):
        Media.parse(Media(packets[2], 8).pack(), codec.config)


def test_batch_makes_and_takes_the_packets_of_streams_alone(codec: Codec) -> None:
    pytest.importorskip("torch", reason="batches need torch")
    rates = bitrates(codec)
    batch = codec.batch(len(rates), device="cpu", bitrate_bps=rates[0])
    for bitrate_bps in rates:
        batch.join(bitrate_bps)
    batch.step(np.repeat(FRAMES[:1], len(rates), axis=0))
    packets = [batch.packet(slot) for slot in range(len(rates))]
    whole = read_packet(packets[-1], codec.config.bits_per_code)
    for slot, packet in enumerate(packets):
        np.testing.assert_array_equal(read_packet(packet, codec.config.bits_per_code, slot + 1), whole[: slot + 1])
        batch.receive(slot, packet)
        np.testing.assert_array_equal(batch.received[slot], [*whole[: slot + 1], *[-1] * (8 - slot)])
