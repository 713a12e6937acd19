"""Opus, by the libopus inside PyAV's FFmpeg."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from streamcodec.errors import BitrateError, MissingExtraError
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs.coded import Coded
from streamcodec.metrics.waveforms import Float32, resampled

FRAME_S = 0.02
LOWEST_KBPS, HIGHEST_KBPS = 6.0, 256.0
_INPUT_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
_OUTPUT_RATE_HZ = 48_000


class Opus:
    """libopus in 20 ms frames at its highest complexity: `voip` for speech, `audio` for the rest.

    Variable rate by default, Opus at its best; `constant` makes every packet the same size, as our codec's are.
    Input goes in at the clip's rate where Opus has it, else at the next higher one; the pre-skip (the encoder's
    look-ahead) is removed.
    """

    def __init__(self, kbps: float, constant: bool = False) -> None:
        if not LOWEST_KBPS <= kbps <= HIGHEST_KBPS:
            raise BitrateError(
                f"Opus at {kbps:g} kbps is outside its range; choose {LOWEST_KBPS:g} to {HIGHEST_KBPS:g}"
            )
        try:
            import av
        except ImportError:
            raise MissingExtraError("av", "eval") from None
        self._av = av
        self._bit_rate_bps = round(1000 * kbps)
        self._constant = constant
        self.codebook_size: int | None = None
        version = ".".join(map(str, av.library_versions["libavcodec"]))
        self.fingerprint = f"opus 1 av {av.__version__} libavcodec {version} {self._bit_rate_bps} {constant}"

    def code(self, clip: Clip) -> Coded:
        """Encode and decode one clip."""
        rate_hz = next((rate for rate in _INPUT_RATES_HZ if rate >= clip.sample_rate_hz), _INPUT_RATES_HZ[-1])
        waveform = resampled(clip.samples, clip.sample_rate_hz, rate_hz)
        packets, header = self._encode(waveform, rate_hz, "voip" if clip.category == "speech" else "audio")
        decoded = resampled(self._decode(packets, header), _OUTPUT_RATE_HZ, clip.sample_rate_hz)
        # The packets past the clip's end only flush the encoder's look-ahead: a stream that goes on has none.
        in_clip = -(-len(waveform) // round(FRAME_S * rate_hz))
        payload_bits = 8 * sum(len(packet) for packet in packets[:in_clip])
        return Coded(decoded[: len(clip.samples)], clip.sample_rate_hz, payload_bits)

    def _encode(self, waveform: Float32, rate_hz: int, application: str) -> tuple[list[bytes], bytes]:
        encoder = self._av.CodecContext.create("libopus", "w")
        encoder.sample_rate = rate_hz
        encoder.format = "flt"
        encoder.layout = "mono"
        encoder.bit_rate = self._bit_rate_bps
        encoder.time_base = Fraction(1, rate_hz)
        encoder.options = {
            "application": application,
            "compression_level": "10",
            "frame_duration": f"{1000 * FRAME_S:g}",
            "vbr": "off" if self._constant else "on",
        }
        encoder.open()
        frame_samples = round(FRAME_S * rate_hz)
        packets = []
        n_frames = -(-len(waveform) // frame_samples) + 1
        padded = np.zeros(n_frames * frame_samples, np.float32)
        padded[: len(waveform)] = waveform
        for i, samples in enumerate(padded.reshape(n_frames, frame_samples)):
            frame = self._av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
            frame.sample_rate = rate_hz
            frame.pts = i * frame_samples
            frame.time_base = encoder.time_base
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
        return [bytes(packet) for packet in packets if packet.size], bytes(encoder.extradata or b"")

    def _decode(self, packets: list[bytes], header: bytes) -> Float32:
        """Samples at 48 kHz; the header tells the decoder how many to skip at the start."""
        decoder = self._av.CodecContext.create("libopus", "r")
        decoder.sample_rate = _OUTPUT_RATE_HZ
        decoder.layout = "mono"
        decoder.extradata = header
        blocks = []
        for packet in [*(self._av.Packet(data) for data in packets), None]:
            blocks += [frame.to_ndarray().reshape(-1) for frame in decoder.decode(packet)]
        joined = np.concatenate(blocks)
        scale = 32768 if joined.dtype == np.int16 else 1
        return joined.astype(np.float32) / np.float32(scale)
