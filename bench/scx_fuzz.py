"""Fuzz: mutated `.scx` files; each is refused with one clear error or gives codes that were written, and soon.

python bench/scx_fuzz.py --files 200000 --minutes 8

Bits are flipped, bytes are cut out, doubled and moved; or a field of the header is replaced and its checksum made to
hold.  Files are read strictly and not, with damage concealed and not, and one in 100 is decoded to a WAV with a small
random model.  Ends with exit code 1 at the first other exception, at a code that was not written, or at a slow file.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from streamcodec import Codec, CodecConfig, save_checkpoint
from streamcodec.bench.reference import random_weights
from streamcodec.bitstream import ScxHeader, ScxReader, ScxWriter
from streamcodec.errors import BitstreamError
from streamcodec.transcode import decode_file

CONFIG = CodecConfig("fuzz", 24_000, 1, 2, (8,), 2, n_codebooks=3, codebook_size=1024, code_dim=2, dilations=(1,))
FIELDS = {
    "channels": (1, 8),
    "n_codebooks": (1, 64),
    "bits_per_code": (1, 15),
    "block_frames": (1, 65_535),
    "hop_samples": (1, 65_535),
    "sample_rate_hz": (1000, 768_000),
    "codec_rate_hz": (1000, 384_000),
    "n_samples": (0, 2**64 - 1),
}
SLOW_S = 5.0
DECODED_ONE_IN = 200


def written(codec: Codec, rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """Make a good file and its codes [channels, K, F]."""
    channels, count, frames = rng.integers(1, 4), rng.integers(1, 4), rng.integers(0, 60)
    rate_hz, block_frames = int(rng.choice([8000, 24_000, 44_100])), int(rng.integers(1, 20))
    header = ScxHeader(codec.model_id, rate_hz, 24_000, 8, int(channels), int(count), 10, block_frames=block_frames)
    frames = header.frames_for(header.samples_for(int(frames)))
    codes = rng.integers(0, 1024, (channels, count, frames)).astype(np.int16)
    file = io.BytesIO()
    writer = ScxWriter(file, header)
    writer.write(codes)
    writer.close(next(n for n in range(20 * frames + 1) if header.frames_for(n) == frames))
    return file.getvalue(), codes


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to three places."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at, other, size = (int(n) for n in rng.integers(0, len(out), 3))
        kind = rng.integers(6)
        if kind < 2:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            out[at : at + size % 9] = rng.bytes(size % 9)
        elif kind == 3:
            del out[at : at + 1 + size % 60]
        elif kind == 4:
            out[at:at] = out[other : other + size % 60]
        else:
            del out[at:]
        if not out:
            break
    return bytes(out)


def forged(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace fields of the header, whose checksum holds."""
    header = ScxHeader.from_bytes(data[:41])
    for name in rng.choice(list(FIELDS), rng.integers(1, 3)):
        low, high = FIELDS[str(name)]
        value = (
            int(np.exp(rng.uniform(0, np.log(float(high))))) if rng.integers(2) else int(rng.integers(low, low + 70))
        )
        header = replace(header, **{str(name): min(max(value, low), high)})
    return header.to_bytes() + (data[41:] if rng.integers(2) else mutated(data[41:] or b"\0", rng))


def check(data: bytes, codes: np.ndarray | None, strict: bool, conceal: bool) -> str | None:
    """Read a file to its end; what is wrong with what it gave, if anything is."""
    try:
        reader = ScxReader(io.BytesIO(data), strict=strict, on_corrupt="conceal" if conceal else "raise")
        own = CONFIG.sample_rate_hz, CONFIG.hop_samples, CONFIG.bits_per_code, CONFIG.n_codebooks
        reader.header.check_model(*own)
        for block in reader:
            if codes is not None and block.shape[1] and strict:  # else no checksum vouches for the last frames
                expected = codes[:, :, reader.frame - block.shape[2] : reader.frame]
                if not np.array_equal(block, expected):
                    return f"codes of frames before {reader.frame} are not those that were written"
    except BitstreamError as error:
        return f"an error of several lines: {error}" if "\n" in str(error) else None
    return None


def main() -> None:
    """Run until the files or the time is used up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, begin, done, decoded, slowest = np.random.default_rng(options.seed), time.monotonic(), 0, 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.scx", Path(folder) / "out.wav"
        save_checkpoint(Path(folder) / "fuzz.safetensors", CONFIG, random_weights(CONFIG))
        codec = Codec.load(Path(folder) / "fuzz.safetensors")
        while done < options.files and time.monotonic() - begin < 60 * options.minutes:
            if done % 100 == 0:
                good, codes = written(codec, rng)
            forge = bool(rng.integers(3) == 0)
            data = forged(good, rng) if forge else mutated(good, rng)
            start = time.monotonic()
            problem = check(data, None if forge else codes, strict=done % 3 < 2, conceal=done % 3 > 0)
            if done % DECODED_ONE_IN < 2:
                source.write_bytes(data)
                try:
                    decoded += decode_file(codec, source, target, strict=bool(done % 2)).n_samples > 0
                except BitstreamError:
                    target.unlink(missing_ok=True)
            slowest = max(slowest, time.monotonic() - start)
            if problem or slowest > SLOW_S:
                sys.exit(f"file {done} of seed {options.seed}: {problem or f'took {slowest:.1f} s'}: {data.hex()}")
            done += 1
    seconds = time.monotonic() - begin
    print(f"{done} files in {seconds:.0f} s, {decoded} of them to sound; the slowest took {slowest:.2f} s: all right")


if __name__ == "__main__":
    main()
