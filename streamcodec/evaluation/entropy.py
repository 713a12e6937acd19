"""How much the codes of each codec could still be squeezed: the entropy section of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamcodec.evaluation.cache import Row
from streamcodec.evaluation.table import markdown
from streamcodec.metrics.codebook import CodebookUse, codebook_use


@dataclass(frozen=True)
class CodeStatistics:
    """Codebooks of one codec over all its clips.  `frames` is what the estimates rest on."""

    codec: str
    frames: int
    codebook_size: int
    books: list[CodebookUse]

    @property
    def efficiency(self) -> float:
        """Order-0 entropy over the bits sent: what an ideal memoryless entropy coder would leave."""
        return sum(book.entropy_bits for book in self.books) / (len(self.books) * float(np.log2(self.codebook_size)))

    @property
    def conditional_efficiency(self) -> float:
        """Bits of an adaptive coder that knows the better of two neighbours of each code, over the bits sent."""
        best = sum(
            min(c.coder_bits for c in (book.given_previous, book.given_coarser) if c is not None) for book in self.books
        )
        return best / (len(self.books) * float(np.log2(self.codebook_size)))


def code_statistics(rows: list[Row]) -> list[CodeStatistics]:
    """Statistics of every codec whose codes are known.

    Of one codec at several bitrates only the highest is looked at: its first codebooks are those of the others.
    """
    by_weights: dict[str, tuple[float, str]] = {}
    for row in rows:
        weights, _, rate = row.codec.rpartition("@")
        if row.codes is not None and float(rate) >= by_weights.get(weights, (0.0, ""))[0]:
            by_weights[weights] = (float(rate), row.codec)
    statistics = []
    for _, codec in by_weights.values():
        members = [row for row in rows if row.codec == codec and row.codes is not None]
        streams = [row.codes for row in members if row.codes is not None]
        size = members[0].codebook_size
        if size is not None and any(stream.shape[1] > 1 for stream in streams):
            frames = sum(stream.shape[1] for stream in streams)
            statistics.append(CodeStatistics(codec, frames, size, codebook_use(list(streams), size)))
    return statistics


def entropy_text(statistics: CodeStatistics) -> str:
    """One codec's table, for people."""
    bits = float(np.log2(statistics.codebook_size))
    lines = []
    for k, book in enumerate(statistics.books):
        conditionals = (book.given_previous, book.given_coarser)
        cells = ["-" if c is None else f"{c.floor_bits:.2f} to {c.coder_bits:.2f}" for c in conditionals]
        lines.append([str(k), f"{book.usage:.1%}", f"{book.perplexity:.0f}", f"{book.entropy_bits:.2f}", *cells])
    table = markdown(["codebook", "usage", "perplexity", "bits", "given previous", "given coarser"], lines)
    return (
        f"{statistics.codec}: {bits:g} bits a code, {statistics.frames} frames. Order-0 entropy coding would leave "
        f"{statistics.efficiency:.1%} of the bitrate;\nan adaptive coder that knows the frame before or the coarser "
        f"code, {statistics.conditional_efficiency:.1%}. Conditional bits are from counts (too low)\n"
        f"to what that coder needs, learning included (too high); they meet when there are enough frames.\n\n{table}"
    )
