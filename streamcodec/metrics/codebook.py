"""How well a codec uses its codebooks, and what an entropy coder could still squeeze out of the codes.

Entropies are plug-in estimates from counts.  They read low: by about (cells - 1) / (2 n ln 2) bits for `cells`
outcomes seen in n codes (Miller and Madow 1955).  For one codebook of 1024 codes that is nothing from 100 000 codes
on; for a pair of codes (1024 x 1024 cells) it is bits, not fractions, so a conditional entropy is reported with that
correction, as `floor_bits` (plain) and `bits` (corrected, at most the order-0 entropy), and means something only when
the two are close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamcodec.errors import AudioError

Codes = NDArray[np.integer]


@dataclass(frozen=True)
class Conditional:
    """Entropy of a code when another is known, in bits: plug-in (reads low) and bias-corrected."""

    floor_bits: float
    bits: float


@dataclass(frozen=True)
class CodebookUse:
    """One codebook's statistics.

    usage: share of the N codes that occur.  perplexity: 2^entropy, of N.  entropy_bits: order 0, corrected, at most
    log2 N.  given_previous: known the same codebook's code of the frame before.  given_coarser: known the coarser
    codebook's code of the same frame (None for the first).
    """

    usage: float
    perplexity: float
    entropy_bits: float
    given_previous: Conditional
    given_coarser: Conditional | None


def usage(codes: Codes, codebook_size: int) -> float:
    """Share of a codebook that occurs in `codes` (any shape): 0 to 1."""
    return len(np.unique(codes)) / codebook_size


def entropy_bits(codes: Codes) -> float:
    """Plug-in entropy of `codes` (any shape) in bits."""
    return _entropy(_counts(np.ravel(codes)))


def perplexity(codes: Codes) -> float:
    """2^entropy: how many equally likely codes would carry as much."""
    return float(2 ** entropy_bits(codes))


def conditional_entropy(codes: Codes, given: Codes, codebook_size: int) -> Conditional:
    """H(codes | given) of two aligned sequences [n]."""
    joint = _counts(np.ravel(given).astype(np.int64) * codebook_size + np.ravel(codes))
    marginal = _counts(np.ravel(given))
    plain = _entropy(joint) - _entropy(marginal)
    corrected = plain + _bias_bits(joint) - _bias_bits(marginal)
    return Conditional(max(0.0, plain), max(0.0, min(corrected, corrected_entropy_bits(codes, codebook_size))))


def corrected_entropy_bits(codes: Codes, codebook_size: int) -> float:
    """Order-0 entropy with Miller and Madow's correction, at most log2 of the codebook's size."""
    counts = _counts(np.ravel(codes))
    return min(_entropy(counts) + _bias_bits(counts), float(np.log2(codebook_size)))


def codebook_use(streams: list[Codes], codebook_size: int) -> list[CodebookUse]:
    """Statistics of every codebook over a list of streams [K, F], frames joined within a stream only.

    Raises
    ------
    AudioError
        No codes, or streams of different K.
    """
    streams = [np.asarray(stream) for stream in streams if np.asarray(stream).shape[-1] > 1]
    if not streams or len({stream.shape[0] for stream in streams}) != 1:
        raise AudioError("codebook statistics need at least one stream of codes [K, F > 1], all with the same K")
    report = []
    for k in range(streams[0].shape[0]):
        here = np.concatenate([stream[k] for stream in streams])
        now = np.concatenate([stream[k, 1:] for stream in streams])
        before = np.concatenate([stream[k, :-1] for stream in streams])
        coarser = np.concatenate([stream[k - 1] for stream in streams]) if k else None
        report.append(
            CodebookUse(
                usage=usage(here, codebook_size),
                perplexity=perplexity(here),
                entropy_bits=corrected_entropy_bits(here, codebook_size),
                given_previous=conditional_entropy(now, before, codebook_size),
                given_coarser=None if coarser is None else conditional_entropy(here, coarser, codebook_size),
            )
        )
    return report


def bitrate_efficiency(streams: list[Codes], codebook_size: int) -> float:
    """Order-0 entropy of all codebooks over the bits that are sent for them (Kumar et al. 2023, table 2): 0 to 1."""
    books = codebook_use(streams, codebook_size)
    return sum(book.entropy_bits for book in books) / (len(books) * float(np.log2(codebook_size)))


def _counts(symbols: Codes) -> NDArray[np.int64]:
    return np.unique(symbols, return_counts=True)[1].astype(np.int64)


def _entropy(counts: NDArray[np.int64]) -> float:
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0


def _bias_bits(counts: NDArray[np.int64]) -> float:
    return float((len(counts) - 1) / (2 * counts.sum() * np.log(2)))
