"""`streamcodec loopback`: sound through encoder and decoder in real time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamcodec.cli._live import (
    buffer_option,
    device_line,
    input_device_option,
    meter,
    output_device_option,
    run_until_stopped,
    seconds_option,
)
from streamcodec.cli._options import (
    INCOMPLETE_EXIT_CODE,
    INPUT,
    OUTPUT,
    OUTPUT_FILE,
    bitrate_option,
    force_option,
    json_option,
    model_options,
    print_json,
    progress_bar,
    say,
)
from streamcodec.codec import Codec
from streamcodec.errors import DeviceError
from streamcodec.files import printable, write_bytes

if TYPE_CHECKING:
    from streamcodec.live.file_loopback import LoopbackReport


@click.command()
@click.option("--input", "source", type=INPUT, help="Sound file.  [default: the speech sample of the package]")
@click.option("--output", "target", type=OUTPUT, help="Sound file; without it, from microphone to speaker.")
@click.option("--fast", is_flag=True, help="Files: as fast as it goes instead of at the pace of the clock.")
@input_device_option
@output_device_option
@click.option(
    "--latency-ms",
    type=click.FloatRange(10, 2000),
    help="Devices: delay from mouth to ear to aim for.  [default: as short as stays smooth]",
)
@buffer_option
@seconds_option
@click.option("--plot", "plot_path", type=OUTPUT_FILE, help="Devices: draw the latency's distribution (PNG).")
@force_option
@bitrate_option
@model_options
@json_option
def command(
    source: Path | None,
    target: Path | None,
    fast: bool,
    input_device: str | None,
    output_device: str | None,
    latency_ms: float | None,
    buffer_ms: float,
    seconds: float | None,
    plot_path: Path | None,
    force: bool,
    bitrate_kbps: float,
    model: Path | None,
    backend: str,
    device: str,
    as_json: bool,
) -> None:
    """Run sound through the codec frame by frame, from microphone to speaker or between files; report latency.

    With --output it plays a file through; without it, a microphone, until Ctrl-C.  Wear headphones.
    """
    if target is None and (source is not None or fast):
        raise click.UsageError("--input and --fast go with --output FILE; leave them out to use microphone and speaker")
    device_options = (input_device, output_device, latency_ms, seconds, plot_path)
    if target is not None and any(option is not None for option in device_options):
        raise click.UsageError("--output FILE runs without devices; leave it out to use microphone and speaker")
    codec = Codec.load(model, backend=backend, device=device)
    if target is not None:
        _files(codec, source or sample_path(), target, fast, force, 1000 * bitrate_kbps, as_json)
        return
    from streamcodec.live.session import LiveLoopback

    loopback = LiveLoopback(
        codec,
        1000 * bitrate_kbps,
        input_device=input_device,
        output_device=output_device,
        latency_ms=latency_ms,
        buffer_ms=buffer_ms,
    )
    if loopback.aim_ms is not None and latency_ms is not None and loopback.aim_ms > latency_ms:
        click.echo(f"the devices' buffers alone take most of {latency_ms:g} ms; aiming for {loopback.aim_ms:.0f} ms "
                   "(--buffer-ms asks for smaller ones)", err=True)  # fmt: skip
    failure = None
    try:
        with loopback.running() as running:
            click.echo(device_line(loopback.devices), err=True)
            run_until_stopped(running, seconds, lambda: _line(loopback))
    except DeviceError as error:
        failure = error
        if not loopback.pipeline.sender.sequence:
            raise
    report = loopback.report()
    if plot_path is not None:
        from streamcodec.live.latency_plot import latency_plot

        write_bytes(plot_path, latency_plot(loopback.pipeline.histograms()))
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if failure is not None:
        raise failure


def _files(
    codec: Codec, source: Path, target: Path, fast: bool, force: bool, bitrate_bps: float, as_json: bool
) -> None:
    from streamcodec.live.file_loopback import run_file_loopback

    with progress_bar(f"loopback {source.name}") as bar:
        report = run_file_loopback(
            codec, source, target, bitrate_bps, paced=not fast, force=force, progress=bar.advance, on_start=bar.start
        )
    if as_json:
        print_json(report.as_dict(), target)
    else:
        _print_file_report(report, codec, target)
    if report.problem:
        click.echo(printable(f"{source}: {report.problem}"), err=True)
        sys.exit(INCOMPLETE_EXIT_CODE)


def _print_file_report(report: LoopbackReport, codec: Codec, target: Path) -> None:
    say(
        f"{printable(target)}: {report.audio_s:.2f} s in {report.frames} frames, {codec.config.name}, "
        f"{codec.engine.name}",
        target,
    )
    if report.paced:
        say(f"latency (first sample in to decoded): {report.latency}", target)
    say(f"compute per frame: {report.compute}", target)
    say(
        f"deadline misses {report.deadline_misses} of {report.frames}, "
        f"real-time factor {report.real_time_factor:.3f}, bitrate {report.bitrate_bps / 1000:.3f} kbps",
        target,
    )


def _line(loopback: Any) -> str:
    """Latency now and p99, fills, xruns, bitrate, levels."""
    pipeline, devices = loopback.pipeline, loopback.devices
    receiver, sender = pipeline.receiver, pipeline.sender
    capture_ms = 1000 * sender.capture.readable_samples / sender.capture_hz
    xruns = devices.capture.xruns + devices.playback.xruns + receiver.underflows + sender.capture.overflows
    return (
        f"mouth to ear {receiver.last_mouth_to_ear_ms:5.1f} ms (p99 {receiver.mouth_to_ear.percentile(99):5.1f})  "
        f"rings {capture_ms:3.0f} | {receiver.ring_ms:3.0f} ms  xruns {xruns}  "
        f"{sender.encoder.bitrate_bps / 1000:.2f} kbps  in {meter(sender.level)} out {meter(receiver.level)}"
    )


def _print_report(report: dict[str, Any]) -> None:
    def row(name: str, part: dict[str, Any]) -> str:
        numbers = "  ".join(f"{part[key]:8.2f}" for key in ("p50_ms", "p99_ms", "p99.9_ms", "max_ms"))
        return f"{name:22}{numbers}"

    click.echo(f"{'ms':22}{'p50':>8}  {'p99':>8}  {'p99.9':>8}  {'max':>8}")
    for name in (
        "capture_device", "capture_ring", "encode", "jitter_buffer", "decode", "playback_ring", "playback_device",
        "mouth_to_ear",
    ):  # fmt: skip
        click.echo(row(name.replace("_", " "), report[name]))
    click.echo(
        f"algorithmic {report['algorithmic_ms']:.1f} ms, bound {report['bound_ms']:.0f} ms; "
        f"{report['frames_sent']} frames, {report['deadline_misses']} deadline misses, "
        f"{report['frames_dropped_over_cap']} dropped over the cap, "
        f"{sum(side['xruns'] for side in report['devices'].values())} xruns, {report['bitrate_bps'] / 1000:.3f} kbps"
    )


def sample_path() -> Path:
    """The speech sample that comes with the package."""
    from importlib.resources import files

    return Path(str(files("streamcodec") / "assets" / "speech.flac"))
