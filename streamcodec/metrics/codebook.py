"""How well a codec uses its codebooks, and what an entropy coder could still squeeze out of the codes.

Order-0 entropies are estimates from counts with Miller and Madow's correction (1955), (cells - 1) / (2 n ln 2) bits,
good from some thousand codes on.  A conditional entropy has 1024 x 1024 cells, which no test set fills: the estimate
from counts reads low by bits, and no correction mends that.  So it is given as two ends.  `floor_bits`, from counts,
is too low.  `coder_bits` is what an adaptive arithmetic coder really needs for these codes, what it spends on
learning included: too high, but achieved.  They meet when there is enough data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamcodec.errors import AudioError

Codes = NDArray[np.integer]

_BLEND_WEIGHTS = (1, 4, 16, 64, 256, 1024)


@dataclass(frozen=True)
class Conditional:
    """Bits of a code when another is known: from counts (too low) and of an adaptive coder (achieved)."""

    floor_bits: float
    coder_bits: float


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
    """Bits of `codes` [n] when `given` [n] is known, both from 0 to codebook_size - 1."""
    code: NDArray[np.int64] = np.ravel(codes).astype(np.int64)
    context: NDArray[np.int64] = np.ravel(given).astype(np.int64)
    joint = context * codebook_size + code
    floor = max(0.0, _entropy(_counts(joint)) - _entropy(_counts(context)))
    # Code by code: the counts so far in this context, blended with the counts so far of all codes.
    order_0 = (_seen_before(code) + 0.5) / (np.arange(len(code)) + 0.5 * codebook_size)
    in_context, of_context = _seen_before(joint), _seen_before(context)
    coder = min(
        float(-np.log2((in_context + weight * order_0) / (of_context + weight)).mean()) for weight in _BLEND_WEIGHTS
    )
    return Conditional(floor, min(coder, float(np.log2(codebook_size))))


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


def _seen_before(symbols: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each symbol of a sequence [n] occurred before it."""
    order = np.argsort(symbols, kind="stable")
    ordered = symbols[order]
    new = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    first = np.repeat(new, np.diff(np.concatenate([new, [len(symbols)]])))
    seen = np.empty(len(symbols), np.int64)
    seen[order] = np.arange(len(symbols)) - first
    return seen


def _counts(symbols: Codes) -> NDArray[np.int64]:
    return np.unique(symbols, return_counts=True)[1].astype(np.int64)


def _entropy(counts: NDArray[np.int64]) -> float:
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0


def _bias_bits(counts: NDArray[np.int64]) -> float:
    return float((len(counts) - 1) / (2 * counts.sum() * np.log(2)))
