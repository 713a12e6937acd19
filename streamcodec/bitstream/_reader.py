"""Reads a `.scx` file block by block, from a disk or from a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from streamcodec.bitstream._blocks import (
    BLOCK_CRC_BYTES,
    BLOCK_HEAD_BYTES,
    END_BYTES,
    padding_is_zero,
    parse_body,
    parse_head,
    parse_length,
    unpack_block,
)
from streamcodec.bitstream._header import HEADER_BYTES, ScxHeader
from streamcodec.errors import BitstreamError, CorruptStream, TruncatedStream, WrongModel

_PIECE_BYTES = 65_536


class ScxReader:
    """Yields the codes of a `.scx` file, block by block: int16 [channels, K, F].

    A block is yielded only when its checksum holds, so all that comes before an error is as it was written.
    One block is held in memory at a time, and never more than the file really has.

    Parameters
    ----------
    file : BinaryIO
        Where to read; positioned at the header.  It stays open, and after the last frame it is positioned right
        behind the end marker.
    model_id : bytes or None
        Refuse a file made with other weights than these.
    strict : bool
        True: a file that is cut raises TruncatedStream after its last whole block.  False: the whole frames of
        the cut block, which no checksum vouches for, are yielded too; then reading ends, with the error in `problem`.
    on_corrupt : "raise" or "conceal"
        "conceal": a damaged block is yielded as [channels, 0, F], F frames to conceal, and counted.

    Attributes
    ----------
    header : ScxHeader
        What the file says about itself.
    frame : int
        The frame that comes next.
    n_samples : int or None
        Samples per channel of the original audio; from the header or, once all was read, from the end marker.
    decoded_frames : int
        Frames yielded so far, lost ones not counted.
    corrupt_blocks, lost_frames : int
        Damaged blocks that were met while concealing, and their frames.
    problem : BitstreamError or None
        The first error that was met and not raised.

    Raises
    ------
    BitstreamError
        The header is none (see `ScxHeader.from_bytes`), or WrongModel.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        model_id: bytes | None = None,
        strict: bool = True,
        on_corrupt: Literal["raise", "conceal"] = "raise",
    ) -> None:
        self._file = file
        self._start = file.tell() if file.seekable() else 0
        self.header = ScxHeader.from_bytes(self._read(HEADER_BYTES))
        if model_id is not None and model_id != self.header.model_id:
            raise WrongModel(
                f"the file was made with model {self.header.model_id.hex()}, but {model_id.hex()} is loaded; "
                "load the weights that it was made with."
            )
        self.n_samples = self.header.n_samples
        self.frame = 0
        self.decoded_frames = 0
        self.corrupt_blocks = 0
        self.lost_frames = 0
        self.problem: BitstreamError | None = None
        self._strict = strict
        self._conceal = on_corrupt == "conceal"
        self._index = 0
        self._first = 0
        self._skip = 0
        self._only_end = False
        self._ended = False
        self._error: BitstreamError | None = None

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        while (codes := self.read_block()) is not None:
            yield codes

    def read_block(self) -> NDArray[np.int16] | None:
        """Codes of the next block, int16 [channels, K, F] with F > 0 (K = 0 when lost), or None at the end.

        Raises
        ------
        CorruptStream
            A checksum or a field does not hold; again at each further call.
        TruncatedStream
            The end marker is missing; again at each further call.
        BitstreamError
            `seek` went to a frame that is past the end.
        """
        while not self._ended:
            if self._error is not None:
                raise self._error
            codes = self._next_block()
            if codes is None:
                break
            n_frames = codes.shape[2] - self._skip
            if n_frames < 0:
                self._fail(BitstreamError(f"the file has no frame {self.frame}; it ends before."))
            codes = codes[:, :, self._skip :]
            self._skip = 0
            self.frame += n_frames
            if codes.shape[1]:
                self.decoded_frames += n_frames
            else:
                self.lost_frames += n_frames
            if n_frames:
                return codes
        return None

    def seek(self, frame: int) -> None:
        """Go to a frame, so that `read_block` yields from it to the end of its block; also clears an error.

        Raises
        ------
        BitstreamError
            The file cannot seek, or ends before that frame (where its length is not known, `read_block` may be
            the one to find out).
        """
        header = self.header
        if not self._file.seekable():
            raise BitstreamError("this input cannot seek; write it to a file first.")
        n_frames = None if self.n_samples is None else header.frames_for(self.n_samples)
        index, skip = divmod(frame, header.block_frames)
        block_bytes = BLOCK_HEAD_BYTES + header.payload_bytes(header.block_frames) + BLOCK_CRC_BYTES
        position = self._start + HEADER_BYTES + index * block_bytes
        size = self._file.seek(0, 2)
        if frame < 0 or (frame > n_frames if n_frames is not None else position >= size):
            last = "its last" if n_frames is None else n_frames
            raise BitstreamError(f"the file has no frame {frame}; seek to one from 0 to {last}.")
        self._file.seek(min(position, size))
        self._index, self._first, self._skip, self.frame = index, index * header.block_frames, skip, frame
        self._only_end, self._ended, self._error = False, False, None

    def _next_block(self) -> NDArray[np.int16] | None:
        """Codes of the next block in full, or None at the end."""
        header, index = self.header, self._index
        expected = 0 if self._only_end else header.block_frames
        if header.n_frames is not None:
            expected = min(expected, max(0, header.n_frames - self._first))
        head = self._read(BLOCK_HEAD_BYTES)
        if len(head) < BLOCK_HEAD_BYTES:
            return self._cut(len(head), None)
        count = parse_head(index, head)
        if count is not None and (count > expected or (count < expected and header.n_frames is not None)):
            count = None
        head_holds = count is not None
        if count is None:
            if not self._conceal:
                self._fail(self._damaged())
            count = expected
        n_bytes = header.payload_bytes(count) + BLOCK_CRC_BYTES if count else END_BYTES - BLOCK_HEAD_BYTES
        body = self._read(n_bytes)
        if len(body) < n_bytes:
            return self._cut(len(head) + len(body), (count, body) if head_holds else None)
        payload = parse_body(index, head, body) if head_holds else None
        if count == 0:
            self._end(payload)
            return None
        codes = None
        if payload is not None and padding_is_zero(payload, count * header.frame_bits):
            codes = unpack_block(payload, header.channels, header.n_codebooks, count, header.bits_per_code)
        if codes is None:
            self._note_damage()
            codes = np.empty((header.channels, 0, count), np.int16)
        self._index += 1
        self._first += count
        self._only_end = head_holds and count < header.block_frames
        return codes

    def _end(self, payload: memoryview | None) -> None:
        """Take the end marker, whose payload is None if it is damaged."""
        n_samples = None if payload is None else parse_length(payload)
        stated = self.header.n_samples
        if n_samples is None or stated not in (None, n_samples) or self.header.frames_for(n_samples) != self._first:
            self._note_damage()
        else:
            self.n_samples = n_samples
        self._ended = True

    def _cut(self, n_bytes: int, partial: tuple[int, bytes] | None) -> NDArray[np.int16] | None:
        """Deal with a file that ends `n_bytes` into a block, of whose frames and body `partial` tells."""
        header = self.header
        codes = None
        if partial is not None and not self._strict:
            count = min(partial[0], 8 * len(partial[1]) // header.frame_bits)
            if count > self._skip:
                codes = unpack_block(partial[1], header.channels, header.n_codebooks, count, header.bits_per_code)
        n_decoded = self.decoded_frames + (0 if codes is None else codes.shape[2] - self._skip)
        error = TruncatedStream(
            f"the file ends {n_bytes} bytes into block {self._index}; decoded {self._duration(n_decoded)}."
        )
        if self._strict:
            self._fail(error)
        self.problem = self.problem or error
        self._ended = True
        return codes

    def _note_damage(self) -> None:
        """Count a damaged block, or raise if damage is not to be concealed."""
        if not self._conceal:
            self._fail(self._damaged())
        self.problem = self.problem or CorruptStream(self._damage())
        self.corrupt_blocks += 1

    def _damaged(self) -> CorruptStream:
        return CorruptStream(
            f"{self._damage()}; decoded {self._duration(self.decoded_frames)}. "
            'Go on past it with on_corrupt="conceal", or without --strict.'
        )

    def _damage(self) -> str:
        return f"block {self._index} is damaged, a checksum or a length does not hold"

    def _fail(self, error: BitstreamError) -> NoReturn:
        self._error = error
        raise error

    def _duration(self, n_frames: int) -> str:
        return f"{n_frames} frames ({n_frames / self.header.frame_rate_hz:.2f} s)"

    def _read(self, n_bytes: int) -> bytes:
        """Read `n_bytes`, fewer at the end of the file; in pieces, so that a false size allocates nothing."""
        pieces = []
        while n_bytes > 0:
            piece = self._file.read(min(n_bytes, _PIECE_BYTES))
            if not piece:
                break
            pieces.append(piece)
            n_bytes -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
