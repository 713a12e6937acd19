"""`streamcodec devices`: the sound devices that can be chosen."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from streamcodec.audio.devices import WITHOUT_DEVICES, list_devices
from streamcodec.cli._options import json_option, print_json


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List sound devices: the number or a part of the name selects one in loopback and call."""
    found = list_devices()
    if as_json:
        print_json({"devices": [asdict(device) for device in found]})
        return
    if not found:
        click.echo(f"No sound devices here; {WITHOUT_DEVICES}.")
    for device in found:
        if device.problem:
            _say(f"{device.number:3}  {device.name}  cannot be used: {device.problem}")
            continue
        default = ", ".join(
            kind for kind, is_it in (("input", device.default_input), ("output", device.default_output)) if is_it
        )
        _say(
            f"{device.number:3}  {device.name} ({device.host_api})  in {device.input_channels}, "
            f"out {device.output_channels}, {device.default_rate_hz} Hz{f'  [default {default}]' if default else ''}"
        )


def _say(line: str) -> None:
    """Print a line, with a question mark for every letter that the terminal's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(line.encode(encoding, "replace").decode(encoding))
