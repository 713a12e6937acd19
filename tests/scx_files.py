"""Small `.scx` files for the tests."""

import io

import numpy as np

from streamcodec.bitstream import ScxHeader, ScxReader, ScxWriter


class Pipe(io.RawIOBase):
    """Bytes that can be read or written once, in order, a few at a time."""

    def __init__(self, data=b"", most=7):
        self.data, self.position, self.most = bytearray(data), 0, most

    def read(self, size=-1):
        assert size >= 0
        piece = bytes(self.data[self.position : self.position + min(size, self.most)])
        self.position += len(piece)
        return piece

    def write(self, data):
        self.data += data
        return len(data)

    def seekable(self):
        return False


def make_header(**changes):
    fields = {
        "model_id": b"demo-mod",
        "sample_rate_hz": 24_000,
        "codec_rate_hz": 24_000,
        "hop_samples": 320,
        "channels": 1,
        "n_codebooks": 8,
        "bits_per_code": 10,
    }
    return ScxHeader(**(fields | changes))


def random_codes(header, n_frames, seed=0):
    shape = (header.channels, header.n_codebooks, n_frames)
    return np.random.default_rng(seed).integers(0, 2**header.bits_per_code, shape).astype(np.int16)


def file_bytes(header, codes, n_samples=None):
    file = io.BytesIO()
    with ScxWriter(file, header) as writer:
        writer.write(codes)
        writer.close(n_samples)
    return file.getvalue()


def read_all(data, **options):
    """Reader, its blocks, and the error that ended them."""
    reader = ScxReader(io.BytesIO(data), **options)
    blocks = []
    try:
        for block in reader:
            blocks.append(block)
    except Exception as error:
        return reader, blocks, error
    return reader, blocks, None


def joined(blocks, header):
    start = np.zeros((header.channels, header.n_codebooks, 0), np.int16)
    return np.concatenate([start, *blocks], axis=2)
