"""One training step after another: the model, its discriminators, their optimisers, and what a resume needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streamcodec.errors import ConfigError
from streamcodec.nn.model import CodecModel
from streamcodec.nn.rate_channel import RateChannel
from streamcodec.training import draws
from streamcodec.training.captured import CapturedStep
from streamcodec.training.opponent import Opponent
from streamcodec.training.optimizer import Adam
from streamcodec.training.reconstruction import Reconstruction, loss_weights
from streamcodec.training.settings import TrainSettings
from streamcodec.training.shapes import model_config
from streamcodec.training.start import take_weights
from streamcodec.training.world import World


class Trainer:
    """Holds everything that a step changes.

    Parameters
    ----------
    settings : TrainSettings
        What to do.
    world : World
        Where, and with whom.
    capture : bool
        On one CUDA device, record a step as a CUDA graph.

    Attributes
    ----------
    step : int
        Steps done.
    clock_share : float
        Share of the time limit that is over, for schedules that follow it.
    average : dict of str to Tensor
        Moving average of the model's state: what gets validated and shipped.
    uses : Tensor
        How often each code was chosen since the counts were last cleared, int64 [K, N].
    recent : Tensor
        Latents of the last steps, [rows, latent]: what codes are seeded from.
    """

    def __init__(self, settings: TrainSettings, world: World, capture: bool = True) -> None:
        if settings.batch % world.size:
            raise ConfigError(f"batch is {settings.batch}; it must be a multiple of the {world.size} processes")
        self.settings = settings
        self.world = world
        self.config = model_config(settings)
        torch.manual_seed(settings.seed)
        self.model = CodecModel(self.config, trainable=True, quantizer=settings.quantizer).to(world.device)
        if settings.freeze_encoder:
            self.model.encoder.requires_grad_(False)
            self.model.quantizer.requires_grad_(False).eval()
        self.optimizer = Adam(self.model, settings.snake_rate_share)
        self.opponent = Opponent(settings, world) if settings.adversarial else None
        self._parallel_model = self._parallel(self.model)
        self._captures = capture and world.device.type == "cuda" and world.size == 1
        if self._captures:
            stream = torch.cuda.Stream(world.device)  # nothing can be recorded on the default one
            stream.wait_stream(torch.cuda.current_stream(world.device))
            torch.cuda.set_stream(stream)
        self._steps: dict[tuple[bool, bool, bool], Callable[..., Any]] = {}
        self.reconstruction = Reconstruction(settings, self.config.sample_rate_hz).to(world.device)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self._pairs: tuple[list[Tensor], list[Tensor]] | None = None
        self.uses = torch.zeros(
            self.config.n_codebooks, self.config.codebook_size, dtype=torch.int64, device=world.device
        )
        self.recent = torch.zeros(0, self.config.latent_dim, device=world.device)
        self.channel = RateChannel(self.config.latent_dim).to(world.device)
        self.step = 0
        self.clock_share = 0.0

    @property
    def skipped_steps(self) -> int:
        """Steps of either side left out because their gradient was not finite."""
        return int(self.optimizer.skipped) + (0 if self.opponent is None else int(self.opponent.skipped))

    @property
    def done(self) -> float:
        """Share of the schedule that is over."""
        share = self.step / self.settings.steps
        return min(1.0, max(share, self.clock_share) if self.settings.follow_clock else share)

    def _parallel(self, module: nn.Module) -> nn.Module:
        if self.world.size == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=True)

    def train_step(self, wave: Tensor) -> dict[str, Tensor]:
        """Learn from this process's rows of the batch of step `self.step`, [rows, T]; return the loss terms."""
        settings, rows = self.settings, self.world.rows(self.settings.batch)
        torch.manual_seed(settings.seed * 1_000_003 + self.step)
        if 0 < settings.encoder_steps == self.step:
            self._fix_encoder()
        if 0 < self.step == settings.unquantized_steps and not settings.freeze_encoder:
            self._seed_codebooks(torch.ones_like(self.uses, dtype=torch.bool))
        share = draws.learning_rate_share(settings, self.step, self.done)
        self.optimizer.set_rate(settings.learning_rate * share)
        if self.opponent is not None:
            self.opponent.set_rate(share)
        used = draws.codebooks_used(settings, self.config.n_codebooks, self.step)[rows.start : rows.stop]
        heard = draws.frames_heard(settings, self.step)[rows.start : rows.stop]
        self.model.quantizer.train(not self.encoder_is_fixed)
        terms, latent, codes = self._learner(used)(*map(self._on_device, (wave, used, heard)))
        terms = {name: term.clone() for name, term in terms.items()}
        self._remember(latent.float())
        self._follow(codes)
        self.step += 1
        self._reseed()
        return terms

    def _on_device(self, tensor: Tensor) -> Tensor:
        """A copy from pinned memory: one from other memory would wait for the step before."""
        if self.world.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.world.device, non_blocking=True)

    def _learner(self, used: Tensor) -> Callable[..., tuple[dict[str, Tensor], Tensor, Tensor | None]]:
        """What does this step's work on the device: `_learn` for its phase, recorded where that can be."""
        channel = self._channel_for(used) if self.step < self.settings.unquantized_steps else None
        opponent = self.opponent if self.step >= self.settings.adversarial_from_step else None
        learn = partial(self._learn, channel=channel, opponent=opponent, fixed=self.encoder_is_fixed)
        if not self._captures or (channel is not None and self.settings.noisy_channel):
            return learn
        phase = channel is None, opponent is not None, self.encoder_is_fixed
        if phase not in self._steps:
            self._steps = {phase: CapturedStep(learn)}  # phases do not come back, and each holds memory
        return self._steps[phase]

    def _learn(
        self,
        wave: Tensor,
        used: Tensor,
        heard: Tensor,
        *,
        channel: Callable[[Tensor], Tensor] | None,
        opponent: Opponent | None,
        fixed: bool,
    ) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """Update both sides once; return the loss terms, the latent and the codes, all without a graph."""
        settings = self.settings
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            made, latent, quantized = self._parallel_model(wave, used, heard, channel=channel, learn_encoder=not fixed)
        made = made.float()
        terms: dict[str, Tensor] = self.reconstruction(made, wave)
        if quantized is not None and not fixed:
            terms |= {"codebook": quantized.codebook_loss, "commitment": quantized.commitment_loss}
        weights = loss_weights(settings)
        total = sum((weights[name] * term for name, term in terms.items()), made.new_zeros(()))
        downhill = total
        if opponent is not None:
            judged, wave_gradient = opponent.play(made.detach(), wave)
            downhill = total + (made * wave_gradient).sum()
            total = total + sum(weights[name] * term for name, term in judged.items() if name in weights)
            terms |= judged
        self.optimizer.zero_grad()
        torch.autograd.backward(downhill)
        terms |= {"gradient": self.optimizer.step(settings.gradient_clip), "total": total}
        codes = None if quantized is None else quantized.codes
        return {name: term.detach() for name, term in terms.items()}, latent.detach(), codes

    def _channel_for(self, used: Tensor) -> Callable[[Tensor], Tensor]:
        """What stands for the quantiser when each clip uses `used` [rows] codebooks."""
        if not self.settings.noisy_channel:
            return lambda latent: latent
        bits = draws.channel_bits(used, self.config.bits_per_code)
        return lambda latent: self.channel(latent, bits)

    @property
    def encoder_is_fixed(self) -> bool:
        """Whether encoder and codebooks stay as they are."""
        return self.settings.freeze_encoder or 0 < self.settings.encoder_steps <= self.step

    @torch.no_grad()
    def _fix_encoder(self) -> None:
        """Go on with the moving average of the encoder, whose latents the codebooks will be seeded from."""
        for name, value in self.model.encoder.state_dict().items():
            value.copy_(self.average[f"encoder.{name}"])
        self.recent = self.recent[:0]

    @torch.no_grad()
    def _follow(self, codes: Tensor | None) -> None:
        """Advance the moving average and the counts of codes."""
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(*self._averaged(), 1 - decay)
        if self.world.size > 1:
            self.world.sum(self.channel.moments).div_(self.world.size)
        if codes is not None:
            index = codes.flatten(0, 1) + self.uses.shape[1] * torch.arange(len(self.uses), device=codes.device)
            self.uses.view(-1).index_add_(0, index.flatten(), torch.ones_like(index).flatten())

    def _averaged(self) -> tuple[list[Tensor], list[Tensor]]:
        """Pairs of a moving average and what it follows."""
        if self._pairs is None:
            state = self.model.state_dict()
            names = [name for name, value in state.items() if value.is_floating_point()]
            self._pairs = [self.average[name] for name in names], [state[name] for name in names]
        return self._pairs

    def _remember(self, latent: Tensor) -> None:
        """Keep the latents of all processes for seeding codes, unless some are not finite."""
        rows = self.world.gather(latent).flatten(0, 1)
        finite = torch.isfinite(rows).all()
        recent = torch.cat([torch.where(finite, rows, 0), self.recent])[: self.settings.seed_rows]
        self.recent = torch.where(finite, recent, self.recent) if len(recent) == len(self.recent) else recent

    def _reseed(self) -> None:
        """Replace codes that nobody used since the counts were last cleared."""
        every = self.settings.reseed_steps
        since = self.step - self.settings.unquantized_steps
        if not every or since <= 0 or since % every or self.encoder_is_fixed:
            return
        self.world.sum(self.uses)
        if self.done <= self.settings.reseed_until:
            self._seed_codebooks(self.uses == 0)
        self.uses.zero_()

    @torch.no_grad()
    def _seed_codebooks(self, only: Tensor) -> None:
        self.model.quantizer.seed(self.recent, only)
        state = self.model.state_dict()
        for name in state:
            if name.startswith("quantizer."):
                self.world.share(state[name])
        for k in range(self.config.n_codebooks):
            for key in ("codebook", "vectors"):
                name = f"quantizer.books.{k}.{key}"
                if name in state:
                    self.average[name].copy_(torch.where(only[k, :, None], state[name], self.average[name]))
            if f"quantizer.books.{k}.basis" in state:
                self.average[f"quantizer.books.{k}.basis"].copy_(state[f"quantizer.books.{k}.basis"])

    def usage(self) -> tuple[float, float]:
        """Share of codes in use and mean perplexity over codebooks, since the counts were last cleared."""
        counts = self.uses.double()
        share = counts / counts.sum(1, keepdim=True).clamp_min(1)
        entropy = -(share * share.clamp_min(1e-12).log()).sum(1)
        return float((counts > 0).double().mean()), float(entropy.exp().mean())

    def averaged_model(self) -> CodecModel:
        """A copy of the model that holds the moving average."""
        model = CodecModel(self.config, trainable=True, quantizer=self.settings.quantizer).to(self.world.device)
        model.load_state_dict(self.average)
        return model.eval()

    def state(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        state: dict[str, Any] = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "uses": self.uses,
            "recent": self.recent,
            "channel": self.channel.state_dict(),
        }
        return state | (self.opponent.state() if self.opponent else {})

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`; discriminators that it lacks start fresh.

        Raises
        ------
        ConfigError
            The state is of another model or of other discriminators.
        """
        try:
            self._load_state(state)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ConfigError(
                f"the run cannot go on with these settings; begin another one, if need be with --init ({reason})"
            ) from None

    def _load_state(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average = {name: value.to(self.world.device) for name, value in state["average"].items()}
        self._pairs = None
        self.optimizer.load_state_dict(state["optimizer"])
        self.uses.copy_(state["uses"])
        self.recent = state["recent"].to(self.world.device)
        self.channel.load_state_dict(state["channel"])
        if self.opponent is not None:
            self.opponent.load_state(state)

    def load_model(self, model: CodecModel) -> None:
        """Start from another model's weights, with fresh optimisers; see `take_weights`."""
        take_weights(self.model, model, seeds_codebooks=self.settings.unquantized_steps > 0)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self._pairs = None
