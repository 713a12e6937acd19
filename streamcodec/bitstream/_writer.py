"""Writes a `.scx` file, to a disk or to a pipe."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from streamcodec.bitstream._blocks import build_block, build_end, pack_block
from streamcodec.bitstream._header import ScxHeader
from streamcodec.bitstream._packets import range_error
from streamcodec.errors import BitstreamError


class ScxWriter:
    """Writes codes to a `.scx` file; as a context manager it closes at the end, and leaves no end marker on an error.

    Parameters
    ----------
    file : BinaryIO
        Where to write: anything with write and flush.  It stays open.
    header : ScxHeader
        Written at once.  Where its length is not known, `close` puts it in if the file can seek.

    Attributes
    ----------
    n_bytes : int
        Written so far.

    Examples
    --------
    >>> import io
    >>> header = ScxHeader(b"demo-mod", 24_000, 24_000, 320, channels=1, n_codebooks=2, bits_per_code=10)
    >>> file = io.BytesIO()
    >>> with ScxWriter(file, header) as writer:
    ...     writer.write(np.zeros((1, 2, 75), np.int16))
    >>> len(file.getvalue())
    253
    """

    def __init__(self, file: BinaryIO, header: ScxHeader) -> None:
        self.header = header
        self.n_frames = 0
        self._file = file
        self._seekable = file.seekable()
        self._start = file.tell() if self._seekable else 0
        self._pending: list[NDArray[np.integer[Any]]] = []
        self._pending_frames = 0
        self._n_blocks = 0
        self._closed = False
        self.n_bytes = 0
        self._put(header.to_bytes())

    def write(self, codes: NDArray[np.integer[Any]]) -> None:
        """Append frames.

        codes: integers [channels, K, F], F from 0 up; they are written block by block, so a block may wait.

        Raises
        ------
        BitstreamError
            The codes have a wrong shape, type or range, or the writer is closed.
        """
        header = self.header
        if self._closed:
            raise BitstreamError("the .scx writer is closed; open a new one to write more frames.")
        if codes.ndim != 3 or codes.shape[:2] != (header.channels, header.n_codebooks) or codes.dtype.kind not in "iu":
            raise BitstreamError(
                f"codes are {codes.dtype} {list(codes.shape)}; "
                f"this file takes integers [{header.channels}, {header.n_codebooks}, frames]."
            )
        if codes.size and (codes.min() < 0 or codes.max() >> header.bits_per_code):
            raise range_error(int(codes.min()), int(codes.max()), header.bits_per_code)
        start = 0
        while start < codes.shape[2]:
            part = codes[:, :, start : start + header.block_frames - self._pending_frames]
            start += part.shape[2]
            self._pending.append(part.astype(np.uint16))
            self._pending_frames += part.shape[2]
            if self._pending_frames == header.block_frames:
                self._write_block()
        self.n_frames += codes.shape[2]

    def close(self, n_samples: int | None = None) -> None:
        """Write what waits and the end marker; a second call does nothing.

        Parameters
        ----------
        n_samples : int or None
            Samples per channel of the original audio; None takes the header's, or else all that the frames carry.

        Raises
        ------
        BitstreamError
            The frames written are not those that `n_samples` take, or the header already says otherwise and the
            file cannot seek.
        """
        if self._closed:
            return
        if n_samples is None:
            n_samples = self.header.n_samples
        if n_samples is None:
            n_samples = self.header.samples_for(self.n_frames)
        needed = self.header.frames_for(n_samples)
        if needed != self.n_frames:
            raise BitstreamError(f"{n_samples} samples take {needed} frames, but {self.n_frames} were written.")
        stated = self.header.n_samples
        if stated not in (None, n_samples) and not self._seekable:
            raise BitstreamError(
                f"{n_samples} samples were written where the header says {stated}; "
                "leave the length out of the header of a file that cannot seek."
            )
        if self._pending_frames:
            self._write_block()
        self._put(build_end(self._n_blocks, n_samples))
        self._closed = True
        if stated != n_samples and self._seekable:
            self.header = replace(self.header, n_samples=n_samples)
            end = self._file.tell()
            self._file.seek(self._start)
            self._file.write(self.header.to_bytes())
            self._file.seek(end)
        self._file.flush()

    def _write_block(self) -> None:
        codes = self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending, axis=2)
        payload = pack_block(codes, self.header.bits_per_code)
        self._put(build_block(self._n_blocks, self._pending_frames, payload))
        self._file.flush()
        self._n_blocks += 1
        self._pending, self._pending_frames = [], 0

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self.n_bytes += len(data)

    def __enter__(self) -> ScxWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
