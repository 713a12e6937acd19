"""`streamcodec bench`: how fast the codec runs on this machine."""

from __future__ import annotations

import click

from streamcodec.cli import _bench_peers


@click.group("bench")
def command() -> None:
    """Measure speed on this machine."""


command.add_command(_bench_peers.command)
