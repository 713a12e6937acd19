"""`streamcodec export`: the network for other runtimes."""

from __future__ import annotations

from pathlib import Path

import click

from streamcodec.cli._options import INPUT_FILE, json_option, print_json


@click.group("export")
def command() -> None:
    """Write the network in another format."""


@command.command("onnx")
@click.option("--model", type=INPUT_FILE, help="Weights, .safetensors.  [default: those of the package]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    show_default="here",
    help="Folder to write to.",
)
@json_option
def onnx(model: Path | None, output: Path, as_json: bool) -> None:
    """Write NAME.encoder.onnx and NAME.decoder.onnx, which run one frame at a time.

    Every history is an input, state.0, state.1, ..., zeros at the start, and an output, next_state.0, ..., which is
    the next run's input.  A code of -1 tells the decoder that a codebook, or the whole frame, did not arrive.
    """
    from streamcodec.checkpoint import load_checkpoint
    from streamcodec.engine.onnx_export import export_onnx

    checkpoint = load_checkpoint(model)
    paths = export_onnx(checkpoint.config, checkpoint.arrays, output)
    if as_json:
        print_json({"encoder": str(paths[0]), "decoder": str(paths[1])})
        return
    for path in paths:
        click.echo(f"wrote {path}, {path.stat().st_size:,} bytes")
