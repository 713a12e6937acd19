"""`streamcodec call`: talk to another computer."""

from __future__ import annotations

import time
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
    INPUT,
    INPUT_FILE,
    OUTPUT,
    bitrate_option,
    force_option,
    json_option,
    model_options,
    print_json,
    say,
)
from streamcodec.codec import Codec
from streamcodec.errors import CallError
from streamcodec.files import printable

if TYPE_CHECKING:
    from streamcodec.live.udp import UdpCall

_AFTER_FILE_S = 1.0


@click.command()
@click.option("--listen", "listen_port", type=click.IntRange(0, 65_535), metavar="PORT", help="Wait for a call.")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on; :: is all.")
@click.option("--to", "target", metavar="HOST:PORT", help="Call this address.")
@click.option(
    "--key", "key_path", type=INPUT_FILE, help="Encrypt with the secret in this file, the same on both sides."
)
@click.option("--copies", type=click.IntRange(0, 4), help="Coarse copies of earlier frames.  [default: by loss]")
@click.option(
    "--cap-ms", type=click.FloatRange(100, 2000), default=400.0, show_default=True, help="Most audio to hold."
)
@click.option("--input", "source_path", type=INPUT, help="Sound file in place of the microphone.")
@click.option("--output", "target_path", type=OUTPUT, help="Sound file in place of the speaker.")
@input_device_option
@output_device_option
@buffer_option
@seconds_option
@force_option
@bitrate_option
@model_options
@json_option
def command(
    listen_port: int | None,
    host: str,
    target: str | None,
    key_path: Path | None,
    copies: int | None,
    cap_ms: float,
    source_path: Path | None,
    target_path: Path | None,
    input_device: str | None,
    output_device: str | None,
    buffer_ms: float,
    seconds: float | None,
    force: bool,
    bitrate_kbps: float,
    model: Path | None,
    backend: str,
    device: str,
    as_json: bool,
) -> None:
    """Talk over UDP: one side listens, the other calls, both with the same weights (and key).

    A caller ends when nobody answers for 30 s, and 5 s after the other side is gone; a listener then waits for the
    next call. Exit code 1 if nobody answered, or nobody called in --seconds.

    With --input or --output, files take the place of the sound devices, and silence that of the one not given.
    """
    if (listen_port is None) == (target is None):
        raise click.UsageError("give either --listen PORT or --to HOST:PORT")
    files = source_path is not None or target_path is not None
    if files and (input_device or output_device):
        raise click.UsageError("--input and --output take the place of devices; leave out the options of devices")
    from streamcodec.live.file_devices import FileDevices
    from streamcodec.live.security import load_key
    from streamcodec.live.session import Devices
    from streamcodec.live.udp import UdpCall, parse_address

    secret = load_key(key_path) if key_path else None
    to = parse_address(target) if target else None
    codec = Codec.load(model, backend=backend, device=device)
    devices = (
        FileDevices(codec, source_path, target_path, force=force)
        if files
        else Devices(codec, input_device, output_device, buffer_ms)
    )
    call = UdpCall(
        codec, devices, listen_port=listen_port, listen_host=host, to=to, secret=secret,
        bitrate_bps=1000 * bitrate_kbps, copies=copies, cap_ms=cap_ms,
    )  # fmt: skip

    if isinstance(devices, FileDevices):
        devices.replaces = lambda: call.peer.calls > 0

    def file_has_ended() -> bool:
        return seconds is None and isinstance(devices, FileDevices) and devices.has_ended(_AFTER_FILE_S)

    try:
        with call.running() as running:
            started_s = time.monotonic()
            click.echo(device_line(devices), err=True)
            click.echo(f"listening on port {call.port}" if to is None else f"calling {target}", err=True)
            if secret is None:
                click.echo("not encrypted: anyone on the way can listen; --key FILE changes that", err=True)
            run_until_stopped(
                running,
                seconds,
                lambda: _line(call, started_s),
                notice=lambda: call.peer.refusal,
                has_ended=file_has_ended,
            )
            waited_long = file_has_ended() or (seconds is not None and time.monotonic() - started_s >= seconds)
    finally:
        call.close()
    if isinstance(devices, FileDevices) and devices.problem:
        click.echo(printable(f"{source_path}: {devices.problem}"), err=True)
    report = call.report()
    if as_json:
        print_json(report, target_path)
    else:
        _print_report(report, call.peer.ended, target_path)
    if report["calls"]:
        return
    nobody = f"nobody answered{f': {call.trouble}' if call.trouble else ''}"
    if to is not None or call.peer.refusal or waited_long:
        raise CallError(nobody)
    click.echo(nobody, err=as_json)


def _line(call: UdpCall, started_s: float) -> str:
    peer = call.peer
    if not peer.connected:
        state = "the call ended" if peer.ended else f"waiting {time.monotonic() - started_s:.0f} s"
        return f"{state}{f'; {peer.refusal}' if peer.refusal else ''}"
    receiver, sender = peer.receiver, peer.sender
    return (
        f"held {receiver.held_ms:4.0f} ms (target {receiver.controller.target_ms:.0f})  "
        f"loss in {100 * peer.loss_received:.0f} % out {100 * peer.rate.loss:.0f} %  "
        f"{sender.encoder.bitrate_bps / 1000:.2f} kbps + {peer.rate.n_copies} copies  "
        f"xruns {call.devices.capture.xruns + call.devices.playback.xruns + receiver.underflows}  "
        f"in {meter(sender.level)} out {meter(receiver.level)}"
    )


def _print_report(report: dict[str, Any], ended: bool, target: Path | None) -> None:
    if report["calls"] and ended:
        say("the call ended: nothing came from the other side for 5 s", target)
    say(
        f"{report['frames_sent']} frames sent, {report['frames_decoded']} heard "
        f"({report['frames_from_coarse_copies']} from copies), {report['frames_concealed']} concealed, "
        f"{report['frames_dropped_over_cap']} dropped over the cap",
        target,
    )
    say(f"datagrams: {', '.join(f'{name} {count}' for name, count in report['datagrams'].items())}", target)
