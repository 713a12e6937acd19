"""The public face: a codec, and live encoders and decoders that each own one stream's state."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamcodec.bitstream import make_packet, read_packet
from streamcodec.checkpoint import Checkpoint, load_checkpoint
from streamcodec.config import CodecConfig
from streamcodec.engine import Engine, Float32, Int16, fade
from streamcodec.engine.alone import alone
from streamcodec.engine.beam import checked_beam
from streamcodec.engine.clips import decode_frames, encode_frames
from streamcodec.engine.select import create_batch, create_engine
from streamcodec.engine.stream import LiveStream, checked_samples
from streamcodec.errors import AudioError, BitstreamError, CorruptStream

if TYPE_CHECKING:
    from streamcodec.engine.batch import StreamBatch


class Codec:
    """A model and the engine that runs it; streams of any number share it.

    Parameters
    ----------
    checkpoint : Checkpoint
        Weights and config.
    engine : Engine
        What runs them.

    Examples
    --------
    >>> codec = Codec.load()
    >>> encoder, decoder = codec.encoder(bitrate_bps=6000), codec.decoder()
    >>> packet = encoder.encode(np.zeros(codec.frame_samples, np.float32))
    >>> len(packet), decoder.decode(packet).shape
    (10, (320,))
    """

    def __init__(self, checkpoint: Checkpoint, engine: Engine) -> None:
        self.config: CodecConfig = checkpoint.config
        self.model_id = checkpoint.model_id
        self.engine = engine
        self._checkpoint = checkpoint

    @classmethod
    def load(cls, path: Path | str | None = None, *, backend: str = "auto", device: str = "cpu") -> Codec:
        """Load weights (those of the package when `path` is None) into an engine.

        Parameters
        ----------
        path : path, optional
            A .safetensors file made by streamcodec.
        backend : {"auto", "cpu", "torch"}
            "auto" is the Numba engine on the CPU and torch on a GPU.
        device : {"cpu", "cuda"}
            Where it runs.

        Raises
        ------
        CheckpointError
            The file cannot be used.
        BackendError
            The engine cannot run here.
        """
        checkpoint = load_checkpoint(path)
        return cls(checkpoint, create_engine(checkpoint, backend, device))

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the waveform."""
        return self.config.sample_rate_hz

    @property
    def frame_samples(self) -> int:
        """Samples in a frame."""
        return self.config.hop_samples

    def encoder(self, bitrate_bps: float = 6000, *, beam: int = 1) -> Encoder:
        """Start one live stream of packets.

        Parameters
        ----------
        bitrate_bps : float
            Decides how many codebooks are used.
        beam : int
            Chains of codes to choose from, 1 to 16: more take longer to encode and sound closer to the original, at
            the same bitrate and for any decoder.  With 1 the nearest code of each codebook is taken in turn.

        Raises
        ------
        BitrateError
            The model does not have this bitrate.
        ConfigError
            The beam is no whole number from 1 to 16.
        """
        return Encoder(self, bitrate_bps, beam)

    def decoder(self) -> Decoder:
        """Start one live stream of audio."""
        return Decoder(self)

    def batch(
        self,
        streams: int,
        *,
        bitrate_bps: float = 6000,
        mode: str = "duplex",
        device: str = "cuda",
        backend: str = "auto",
        precision: str = "ieee",
    ) -> StreamBatch:
        """Many streams at once on one device, for a server; see `streamcodec.engine.batch.StreamBatch`.

        Raises
        ------
        BackendError
            It cannot run here.
        """
        return create_batch(self._checkpoint, streams, bitrate_bps, mode, device, backend, precision)

    def tokenize(self, waveform: Float32, bitrate_bps: float | None = None, *, beam: int = 1) -> Int16:
        """Codes int16 [K, F] of a clip float32 [T]; the last frame is filled up with silence.

        `bitrate_bps` decides K; all codebooks when None.  `beam` as in `encoder`.
        """
        beam = checked_beam(beam)
        samples = checked_samples(waveform, None)
        config = self.config
        count = config.n_codebooks if bitrate_bps is None else config.codebooks_for(bitrate_bps)
        hop = config.hop_samples
        frames = np.zeros((-(-len(samples) // hop), hop), np.float32)
        frames.reshape(-1)[: len(samples)] = samples
        codes = np.empty((len(frames), count), np.int16)
        encode_frames(self.engine, frames[:, None], self.engine.encoder_state(), codes[:, None], beam)
        return np.ascontiguousarray(codes.T)

    def detokenize(self, codes: Int16) -> Float32:
        """Waveform float32 [F * frame_samples] of codes int16 [K, F].

        Raises
        ------
        CorruptStream
            A code or the number of codebooks is out of range.
        """
        config = self.config
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.dtype.kind not in "iu" or not 1 <= codes.shape[0] <= config.n_codebooks:
            raise CorruptStream(
                f"codes are {codes.dtype} {codes.shape}; give integers [K, F] with K from 1 to {config.n_codebooks}"
            )
        self._check_codes(codes)
        rows = np.ascontiguousarray(codes.T, np.int16)
        frames = np.empty((len(rows), config.hop_samples), np.float32)
        decode_frames(self.engine, rows[:, None], self.engine.decoder_state(), frames[:, None])
        return frames.reshape(-1)

    def _check_codes(self, codes: Int16) -> None:
        if codes.size and not (codes.min() >= 0 and codes.max() < self.config.codebook_size):
            raise CorruptStream(
                f"a code lies outside 0 to {self.config.codebook_size - 1}: from {codes.min()} to {codes.max()}"
            )


class Encoder(LiveStream):
    """One live stream of packets, for one thread at a time.

    Samples that do not fill a frame yet wait in the state.
    """

    def __init__(self, codec: Codec, bitrate_bps: float, beam: int = 1) -> None:
        super().__init__(codec.engine.encoder_state(), codec.frame_samples + 1)
        self.codec = codec
        self.bitrate_bps = bitrate_bps
        self.beam = beam

    @property
    def bitrate_bps(self) -> float:
        """Bitrate; may change between any two frames."""
        return self._n_codebooks * self.codec.config.bitrate_step_bps

    @bitrate_bps.setter
    def bitrate_bps(self, value: float) -> None:
        self._n_codebooks = self.codec.config.codebooks_for(value)
        self._codes = np.empty((1, self._n_codebooks), np.int16)

    @property
    def beam(self) -> int:
        """Chains of codes to choose from, as in `Codec.encoder`; may change between any two frames."""
        return self._beam

    @beam.setter
    def beam(self, value: int) -> None:
        beam = checked_beam(value)
        if beam > 1:  # once on silence, as the first search may have to be compiled
            engine, codes = self.codec.engine, np.empty((1, 1), np.int16)
            engine.encode_step(np.zeros((1, self.codec.frame_samples), np.float32), engine.encoder_state(), codes, beam)
        self._beam = beam

    def encode(self, frame: Float32) -> bytes:
        """Code one frame, float32 [frame_samples] in [-1, 1], into `config.packet_bytes(K)` bytes.

        Raises
        ------
        AudioError
            The frame is of a wrong type or length, not finite, or samples of an earlier `push` still wait.
        BusyError
            Another thread uses the stream.
        """
        if not self._busy.acquire(False):
            raise self._in_use()
        try:
            frame = checked_samples(frame, self.codec.frame_samples)
            if fill := self.pending_samples:
                raise AudioError(f"{fill} pushed samples still wait; go on with push(), or flush() first")
            return self._encode(frame)
        finally:
            self._busy.release()

    @property
    def pending_samples(self) -> int:
        """Samples that wait for their frame to fill.

        Raises
        ------
        AudioError
            The state was written to, and their number is impossible.
        """
        own = self._own
        count = float(own[-1])
        if count and (problem := self._impossible(count, len(own) - 2)):
            raise self._no_state(problem)
        return int(count)

    @alone
    def push(self, samples: Float32) -> list[bytes]:
        """Take any number of samples, float32 [T]; return the packets of the frames that they complete.

        Raises
        ------
        AudioError
            The samples are of a wrong type or not finite.
        BusyError
            Another thread uses the stream.
        """
        samples = checked_samples(samples, None)
        waiting, packets = self._own[:-1], []
        while len(samples):
            fill = self.pending_samples
            taken = samples[: len(waiting) - fill]
            waiting[fill : fill + len(taken)] = taken
            samples = samples[len(taken) :]
            self._own[-1] = fill + len(taken)
            if fill + len(taken) == len(waiting):
                self._own[-1] = 0
                packets.append(self._encode(waiting))
        return packets

    @alone
    def flush(self) -> list[bytes]:
        """Fill the frame that has begun with silence and return its packet, if there is one."""
        fill = self.pending_samples
        return self.push(np.zeros(self.codec.frame_samples - fill, np.float32)) if fill else []

    def _encode(self, frame: Float32) -> bytes:
        codes = self._codes  # another thread may set the bitrate
        self.codec.engine.encode_step(frame.reshape(1, -1), self._engine_state, codes, self._beam)
        return make_packet(codes[0], self.codec.config.bits_per_code)

    def _problem(self, own: Float32) -> str | None:
        peak = np.abs(own[:-1]).max()
        if peak > 1:
            return f"holds a waiting sample of {peak:g}; samples go from -1 to 1"
        return self._impossible(float(own[-1]), len(own) - 2)

    @staticmethod
    def _impossible(count: float, most: int) -> str | None:
        if 0 <= count <= most and count == int(count):
            return None
        return f"holds {count:g} waiting samples; a whole number from 0 to {most} can wait"


class Decoder(LiveStream):
    """One live stream of audio, for one thread at a time.

    A lost packet is concealed by the network, which was trained with lost frames; the level is held for
    4 frames (53 ms) of loss, fades out over the next 8, and comes back within one frame.
    """

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec.engine.decoder_state(), fade.VALUES)
        self.codec = codec

    def decode(self, packet: bytes | None) -> Float32:
        """Return the frame float32 [frame_samples] of a packet, or a concealed one for None.

        Raises
        ------
        BitstreamError
            Not a packet of this model: its length or a field is wrong; the stream's state is untouched.
        AudioError
            The state was written to, and makes sound that is not finite.
        BusyError
            Another thread uses the stream.
        """
        if not self._busy.acquire(False):
            raise self._in_use()
        try:
            return self._decode(packet)
        finally:
            self._busy.release()

    def _decode(self, packet: bytes | None) -> Float32:
        config = self.codec.config
        if packet is None:
            codes = np.empty((1, 0), np.int16)
        else:
            codes = read_packet(packet, config.bits_per_code).reshape(1, -1)
            if codes.shape[1] > config.n_codebooks:
                raise BitstreamError(
                    f"a packet of {len(packet)} bytes has {codes.shape[1]} codes; "
                    f"this model makes at most {config.n_codebooks}"
                )
        frame = np.empty((1, config.hop_samples), np.float32)
        self.codec.engine.decode_step(codes, self._engine_state, frame)
        sound = frame[0]
        if not isfinite(sound.dot(sound)):
            raise self._no_state("makes sound that is not finite")
        return self._faded(sound, lost=packet is None)

    def _problem(self, own: Float32) -> str | None:
        return fade.problem(own)

    def _faded(self, frame: Float32, lost: bool) -> Float32:
        """Scale by a gain that follows how many frames were lost in a row."""
        own = self._own
        if not lost and own[0] == own[1] == 0:
            return frame
        (before,), (after,) = fade.gains(np.array([lost]), own.reshape(1, -1))
        if before == after == 1:
            return frame
        if not (0 <= before <= 1 and 0 <= after <= 1):
            raise self._no_state(f"fades from {before:g} to {after:g}; gains are from 0 to 1")
        return frame * np.linspace(before, after, len(frame), dtype=np.float32)
