"""What lies in a sound file, told by its content: the format, and where each of the sound files in it is.

Lengths in headers are promises that recorders, pipes and downloads break.  A layout says what is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from streamcodec.audio.view import Part


@dataclass(frozen=True)
class Piece:
    """One sound file, of which several may lie one after the other.

    Parameters
    ----------
    parts : tuple of Part
        What a decoder is shown.
    promised : float
        How much sound its header promises for each second that is there: above 1 the end is missing, below 1 the
        header knows only of the beginning.
    n_samples : int, optional
        Length per channel, where it is known better than by the decoder.
    """

    parts: tuple[Part, ...]
    promised: float = 1.0
    n_samples: int | None = None


@dataclass
class Layout:
    """Format and pieces of a file.

    Parameters
    ----------
    kind : str
        Name of the format, for people.
    pieces : list of Piece
        At least one.
    notes : list of str
        What was found that is no sound, and is left out.
    by_libav : bool
        libsndfile cannot read this format.
    """

    kind: str
    pieces: list[Piece]
    notes: list[str] = field(default_factory=list)
    by_libav: bool = False
