"""The exceptions that streamcodec raises on purpose.

StreamcodecError
    ConfigError             a model description that cannot be built
    BitrateError            a bitrate that this model does not have
    AudioError              audio of a wrong shape, dtype, rate or content
    CheckpointError         a weights file that cannot be used
    BitstreamError          bytes that are not a valid packet or file
        UnsupportedVersion  made by a newer or an unknown format version
        WrongModel          made with other weights than those loaded
        CorruptStream       a checksum or a field does not hold
        TruncatedStream     the end is missing; what came before is intact
    BackendError            the chosen engine cannot run here
    BusyError               a stream is used by two threads at once
    SlotError               a slot of a batch is not there, or none is free
    DeviceError             an audio device cannot be used
    CallError               a call that nobody took
    CorpusError             training data that cannot be made or read
    TokensError             shards of tokens that cannot be made or read
    FolderInUseError        another run is working in the folder
    MissingExtraError       an optional dependency is not installed
"""


class StreamcodecError(Exception):
    """Base of every error that streamcodec raises on purpose; its text is one clear line."""


class ConfigError(StreamcodecError, ValueError):
    """A model description that cannot be built."""


class BitrateError(StreamcodecError, ValueError):
    """A bitrate that this model does not have."""


class AudioError(StreamcodecError, ValueError):
    """Audio of a wrong shape, dtype, rate or content."""


class CheckpointError(StreamcodecError, ValueError):
    """A weights file that cannot be used."""


class BitstreamError(StreamcodecError, ValueError):
    """Bytes that are not a valid packet or file."""


class UnsupportedVersion(BitstreamError):
    """The bytes were made by a newer or an unknown format version."""


class WrongModel(BitstreamError):
    """The bytes were made with other weights than those loaded."""


class CorruptStream(BitstreamError):
    """A checksum or a field does not hold."""


class TruncatedStream(BitstreamError):
    """The end is missing; what came before is intact."""


class BackendError(StreamcodecError, RuntimeError):
    """The chosen engine cannot run here."""


class BusyError(StreamcodecError, RuntimeError):
    """A stream is used by two threads at once."""


class SlotError(StreamcodecError, ValueError):
    """A slot of a batch is not there, or none is free."""


class DeviceError(StreamcodecError, RuntimeError):
    """An audio device cannot be used."""


class CallError(StreamcodecError, RuntimeError):
    """A call that nobody took."""


class CorpusError(StreamcodecError, ValueError):
    """Training data that cannot be made or read."""


class TokensError(StreamcodecError, ValueError):
    """Shards of tokens that cannot be made or read."""


class FolderInUseError(StreamcodecError, RuntimeError):
    """Another run is working in the folder."""


class MissingExtraError(StreamcodecError, ImportError):
    """An optional dependency is not installed.

    Parameters
    ----------
    package : str
        The import that failed.
    extra : str
        The extra of streamcodec that brings it.
    what : str, optional
        What it is needed for, as the beginning of a sentence.
    """

    def __init__(self, package: str, extra: str, what: str = "") -> None:
        text = f"{package} is not installed; install it with: pip install 'streamcodec[{extra}]'"
        super().__init__(f"{what}; {text}" if what else text)
        self.package = package
        self.extra = extra
