"""What a beam over the codebooks gains: `python bench/beam_quality.py [PATHS ...] [--clips N] [--json rows.json]`.

Each clip of speech (in corpora, folders and files; the bundled sample by default) is coded with each beam at each
bitrate.  Scores are means over clips, gains are means of the clips' own differences to beam 1, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from streamcodec import Codec
from streamcodec.cli.loopback import sample_path
from streamcodec.evaluation.clips import collect_clips, items_of_paths
from streamcodec.evaluation.scoring import METRICS, score
from streamcodec.evaluation.table import Estimate

BEAMS, KBPS, SCORES = (1, 4, 8), (3, 6, 9), ("si_sdr", "pesq", "visqol")


def measure(codec: Codec, clips: list) -> list[dict]:
    """A row for each clip, bitrate and beam."""
    rows = []
    for clip in clips:
        for kbps in KBPS:
            for beam in BEAMS:
                codes = codec.tokenize(clip.samples, 1000 * kbps, beam=beam)
                heard = codec.detokenize(codes)[: len(clip.samples)]
                values = score(clip.samples, heard, clip.sample_rate_hz, "speech", SCORES).values
                rows.append({"clip": clip.name, "kbps": kbps, "beam": beam, **values})
    return rows


def table(rows: list[dict]) -> str:
    """Rows as Markdown."""
    titles = [METRICS[name].title for name in SCORES]
    lines = ["| kbps | beam | " + " | ".join([*titles, *(f"gain in {title}" for title in titles)]) + " | clips |"]
    lines.append("|" + "---|" * (2 * len(titles) + 3))
    for kbps in KBPS:
        plain = [row for row in rows if (row["kbps"], row["beam"]) == (kbps, 1)]
        for beam in BEAMS:
            found = [row for row in rows if (row["kbps"], row["beam"]) == (kbps, beam)]
            means, gains = [], []
            for name in SCORES:
                values = [row[name] for row in found]
                differences = [value - row[name] for value, row in zip(values, plain, strict=True)]
                mean, gain = Estimate.of(values), Estimate.of(differences)
                assert mean is not None
                assert gain is not None
                means.append(f"{mean.mean:.2f}")
                gains.append("+" * (gain.mean >= 0) + gain.text(2))
            cells = [str(kbps), str(beam), *means, *(gains if beam > 1 else ["-"] * len(SCORES)), str(len(found))]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, default=[Path(sample_path())])
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    codec = Codec.load(given.model)
    items = items_of_paths(given.paths, "speech")
    clips, notes = collect_clips(
        [item for item in items if item.category == "speech"], codec.sample_rate_hz, given.clips
    )
    rows = measure(codec, clips)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*notes, table(rows)]))


if __name__ == "__main__":
    main()
