"""`streamcodec train`: train a model on a corpus."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from streamcodec.errors import ConfigError, MissingExtraError
from streamcodec.locks import folder_in_use
from streamcodec.training.settings import ABLATIONS, TrainSettings


def _parsed(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text}: write NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@click.command()
@click.option("--corpus", type=click.Path(path_type=Path, exists=True), required=True, help="Made by `corpus build`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run; resumes what it holds.")
@click.option("--preset", help="Shape of the model.  [default: tiny-24k, or that of --init]")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a training setting (repeatable).")
@click.option("--ablation", type=click.Choice(list(ABLATIONS)), help="Change what one of the talk's ablations changes.")
@click.option("--init", type=click.Path(path_type=Path), help="Weights to start from; `default` for the shipped ones.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads of torch.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that draw crops.")
@click.option("--time-limit", type=float, metavar="MINUTES", help="Stop by itself after this long, resumable.")
@click.option("--piece-mb", type=click.IntRange(1), default=15, show_default=True, help="Largest piece of the state.")
@click.option("--save-every", type=float, default=5, show_default=True, metavar="MINUTES", help="Between saves.")
@click.option("--tensorboard/--no-tensorboard", default=True, show_default=True)
@click.option("--graph/--no-graph", default=True, show_default=True, help="Record steps as CUDA graphs on one GPU.")
def command(
    corpus: Path,
    out: Path,
    preset: str | None,
    changes: tuple[str, ...],
    ablation: str | None,
    init: Path | None,
    device: str,
    threads: int | None,
    workers: int,
    time_limit: float | None,
    piece_mb: int,
    save_every: float,
    tensorboard: bool,
    graph: bool,
) -> None:
    """Train a model; several GPUs through torchrun.

    Ctrl-C finishes the step, saves and stops; the same command goes on.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingExtraError("torch", "train") from None
    from streamcodec.checkpoint import load_checkpoint
    from streamcodec.nn.ema_quantizer import is_euclidean
    from streamcodec.nn.model import CodecModel
    from streamcodec.training.corpus.reader import Corpus
    from streamcodec.training.memory import keep_freed_memory
    from streamcodec.training.run import Validation, run, validation_sampler_shape
    from streamcodec.training.sampler import CropSampler
    from streamcodec.training.shapes import model_config
    from streamcodec.training.world import World

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch finds no GPU; use --device cpu")
    if device == "cpu":
        keep_freed_memory()
    torch.backends.cudnn.benchmark = True
    if threads:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    stored = out / "settings.json"
    settings = TrainSettings.from_json(stored.read_text()) if stored.is_file() else TrainSettings()
    checkpoint = None
    if init is not None and not stored.is_file():
        checkpoint = load_checkpoint(None if str(init) == "default" else init)
        shape = {"preset": checkpoint.config.name, "code_dim": checkpoint.config.code_dim}
        if is_euclidean(checkpoint.arrays):
            shape |= {"quantizer": "ema", "ema_dim": checkpoint.config.code_dim - 1}
        settings = settings.changed(shape | {"unquantized_steps": 0})
    if ablation:
        settings = settings.changed(ABLATIONS[ablation])
    if preset:
        settings = settings.changed({"preset": preset})
    settings = settings.changed(dict(_parsed(text) for text in changes))
    config = model_config(settings)
    start = None
    if checkpoint is not None:
        kind = "ema" if is_euclidean(checkpoint.arrays) else "factorized"
        start = CodecModel(checkpoint.config, trainable=True, quantizer=kind)
        start.load_arrays(checkpoint.arrays)
    world = World.join(device, os.environ)
    data = Corpus.open(corpus)
    if world.rank == 0:
        with click.progressbar(length=len(data.shard_samples), label="decoding shards") as bar:
            data.fill_cache(lambda _shard: bar.update(1))
    crop = settings.crop_frames * config.hop_samples
    sampler = CropSampler(
        data, "train", crop, settings.batch, settings.seed, augment=settings.augment, balanced=settings.balanced
    )
    length, count = validation_sampler_shape(config.sample_rate_hz, config.hop_samples)
    validation = Validation(
        CropSampler(data, "validation", length, count, seed=1, augment=False),
        config.sample_rate_hz,
        world.device,
        settings.phase_share,
    )
    stop = threading.Event()
    former = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    for field in fields(settings):
        click.echo(f"{field.name} = {getattr(settings, field.name)!r}")
    out.mkdir(parents=True, exist_ok=True)
    with folder_in_use(out) if world.rank == 0 else nullcontext():
        trainer = run(
            settings,
            sampler,
            validation,
            out,
            world,
            start_from=start,
            time_limit_s=float("inf") if time_limit is None else 60 * time_limit,
            piece_bytes=piece_mb << 20,
            workers=workers,
            save_every_s=60 * save_every,
            tensorboard=tensorboard,
            say=click.echo,
            stop_asked=stop.is_set,
            capture=graph,
        )
    for number, handler in former.items():
        signal.signal(number, handler)
    click.echo(f"stopped after step {trainer.step}")
    world.leave()
