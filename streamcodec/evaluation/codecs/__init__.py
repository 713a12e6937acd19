"""The codecs that can be compared, each behind the same small face, chosen by a spec.

A spec is NAME@KBPS or NAME:PATH@KBPS, where PATH is a weights file, a folder of weights or a hub name:

=============  ===================================================================================================
ours           the bundled weights; ours:run/best.safetensors@3 any other
opus           libopus by PyAV, 20 ms frames, variable rate; opus-cbr the same with constant rate
encodec, dac,  by transformers, from PATH or, without one, from the hub
mimi
lyra           Lyra v2's own TFLite files, in the folder PATH, by ai-edge-litert
=============  ===================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from streamcodec.errors import ConfigError
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs.coded import Coded as Coded

NAMES = ("ours", "opus", "opus-cbr", "encodec", "dac", "mimi", "lyra")


class Codec(Protocol):
    """One codec at one bitrate."""

    @property
    def fingerprint(self) -> str:
        """Names everything that decides what it makes of a clip: weights, bitrate, version."""
        ...

    @property
    def codebook_size(self) -> int | None:
        """Codes in one codebook, for those codecs whose codes are looked at."""
        ...

    def code(self, clip: Clip) -> Coded:
        """Encode and decode one clip."""
        ...


@dataclass(frozen=True)
class Spec:
    """A codec, where its weights are, and its nominal bitrate."""

    name: str
    path: str | None
    kbps: float

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read NAME@KBPS or NAME:PATH@KBPS.

        Raises
        ------
        ConfigError
            Another form, an unknown name, or a bitrate that is not a positive number.

        Examples
        --------
        >>> Spec.parse("ours:best.safetensors@3")
        Spec(name='ours', path='best.safetensors', kbps=3.0)
        """
        head, at, rate = text.strip().rpartition("@")
        name, _, path = head.partition(":")
        if not at or name not in NAMES:
            raise ConfigError(f"codec {text!r} is not NAME@KBPS or NAME:PATH@KBPS with NAME one of {', '.join(NAMES)}")
        try:
            kbps = float(rate)
        except ValueError:
            kbps = 0.0
        if not 0 < kbps < 10_000:
            raise ConfigError(
                f"codec {text!r} has the bitrate {rate!r}; give kilobits per second, for example {name}@6"
            )
        return cls(name, path or None, kbps)

    def __str__(self) -> str:
        return f"{self.name}{':' + self.path if self.path else ''}@{self.kbps:g}"


@lru_cache(maxsize=32)
def open_codec(spec: Spec) -> Codec:
    """Make the codec ready.

    Raises
    ------
    StreamcodecError
        Its weights or its package are not there, or it does not have this bitrate.
    """
    if spec.name == "ours":
        from streamcodec.evaluation.codecs.ours import Ours

        return Ours.open(spec.path, spec.kbps)
    if spec.name.startswith("opus"):
        from streamcodec.evaluation.codecs.opus import Opus

        return Opus(spec.kbps, constant=spec.name == "opus-cbr")
    if spec.name == "lyra":
        from streamcodec.evaluation.codecs.lyra import Lyra

        return Lyra(spec.path, spec.kbps)
    from streamcodec.evaluation.codecs.transformers import TransformersCodec

    return TransformersCodec(spec.name, spec.path, spec.kbps)


__all__ = ["NAMES", "Codec", "Coded", "Spec", "open_codec"]
