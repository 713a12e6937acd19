"""A streaming neural audio codec: 13.3 ms frames, a few bytes each, real time on one CPU core."""

from streamcodec.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from streamcodec.codec import Codec, Decoder, Encoder
from streamcodec.config import PRESETS, CodecConfig
from streamcodec.errors import (
    AudioError,
    BackendError,
    BitrateError,
    BitstreamError,
    BusyError,
    CheckpointError,
    ConfigError,
    CorpusError,
    CorruptStream,
    DeviceError,
    MissingExtraError,
    SlotError,
    StreamcodecError,
    TokensError,
    TruncatedStream,
    UnsupportedVersion,
    WrongModel,
)

__all__ = [
    "PRESETS",
    "AudioError",
    "BackendError",
    "BitrateError",
    "BitstreamError",
    "BusyError",
    "Checkpoint",
    "CheckpointError",
    "Codec",
    "CodecConfig",
    "ConfigError",
    "CorpusError",
    "CorruptStream",
    "Decoder",
    "DeviceError",
    "Encoder",
    "MissingExtraError",
    "SlotError",
    "StreamcodecError",
    "TokensError",
    "TruncatedStream",
    "UnsupportedVersion",
    "WrongModel",
    "load_checkpoint",
    "save_checkpoint",
]
