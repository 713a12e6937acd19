"""One self-contained HTML page: table, plots, entropy, and players to compare by ear."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from importlib import resources
from string import Template

from streamcodec.errors import StreamcodecError
from streamcodec.evaluation.alignment import align
from streamcodec.evaluation.cache import Row
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs import Spec, open_codec
from streamcodec.evaluation.entropy import code_statistics, entropy_text
from streamcodec.evaluation.plots import quality_plot
from streamcodec.evaluation.table import Summary, table_cells
from streamcodec.metrics.waveforms import Float32, resampled

PLAYERS = 4


def html_report(
    summaries: list[Summary],
    rows: list[Row],
    clips: list[Clip],
    specs: list[Spec],
    metrics: Sequence[str],
    notes: list[str],
) -> str:
    """The page, with players for up to four clips, one of each category in turn."""
    page = resources.files("streamcodec.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    headers, lines = table_cells(summaries, metrics)
    seconds = sum(clip.duration_s for clip in clips)
    working = [spec for spec in specs if any(row.codec == str(spec) for row in rows)]
    return Template(page).substitute(
        clips=f"{len(clips)} clips, {seconds:.0f} s, {clips[0].sample_rate_hz / 1000:g} kHz",
        table=_table(headers, lines),
        plot=base64.b64encode(quality_plot(summaries, metrics)).decode(),
        notes="".join(f"<li>{html.escape(note)}</li>" for note in notes),
        entropy="".join(f"<pre>{html.escape(entropy_text(s))}</pre>" for s in code_statistics(rows)),
        players=json.dumps([_player(clip, working) for clip in _to_listen_to(clips)]).replace("</", "<\\/"),
    )


def _table(headers: list[str], lines: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in headers)
    body = "".join(
        f'<tr><th scope="row">{html.escape(line[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in line[1:])
        + "</tr>"
        for line in lines
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _to_listen_to(clips: list[Clip]) -> list[Clip]:
    by_category: dict[str, list[Clip]] = {}
    for clip in clips:
        by_category.setdefault(clip.category, []).append(clip)
    turns = [members[i] for i in range(PLAYERS) for members in by_category.values() if i < len(members)]
    return turns[:PLAYERS]


def _player(clip: Clip, specs: list[Spec]) -> dict[str, object]:
    versions = [{"name": "original", "flac": flac_base64(clip.samples, clip.sample_rate_hz)}]
    for spec in dict.fromkeys(specs):
        try:
            decoded = decode_for_listening(clip, spec)
        except StreamcodecError:
            continue
        versions.append({"name": str(spec), "flac": flac_base64(decoded, clip.sample_rate_hz)})
    return {"clip": clip.name, "category": clip.category, "versions": versions}


def decode_for_listening(clip: Clip, spec: Spec) -> Float32:
    """What `spec` makes of a clip, at its rate, aligned in time and level to the original: float32 [T]."""
    coded = open_codec(spec).code(clip)
    decoded = resampled(coded.samples, coded.sample_rate_hz, clip.sample_rate_hz)
    return align(clip.samples, decoded, clip.sample_rate_hz)


def flac_base64(samples: Float32, sample_rate_hz: int) -> str:
    """`samples` [T] as a FLAC file in base64, which every browser plays."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, samples.clip(-1, 1), sample_rate_hz, format="FLAC", subtype="PCM_16")
    return base64.b64encode(out.getvalue()).decode()
