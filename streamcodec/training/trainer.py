"""One training step after another: the model, its discriminators, their optimisers, and what a resume needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streamcodec.errors import ConfigError
from streamcodec.nn.model import CodecModel
from streamcodec.nn.quantizer import Quantized
from streamcodec.nn.rate_channel import RateChannel
from streamcodec.training import draws, losses
from streamcodec.training.discriminators import Discriminators
from streamcodec.training.reconstruction import Reconstruction, loss_weights
from streamcodec.training.settings import TrainSettings
from streamcodec.training.shapes import discriminator_config, model_config
from streamcodec.training.world import World


class Trainer:
    """Holds everything that a step changes.

    Parameters
    ----------
    settings : TrainSettings
        What to do.
    world : World
        Where, and with whom.

    Attributes
    ----------
    step : int
        Steps done.
    average : dict of str to Tensor
        Moving average of the model's state: what gets validated and shipped.
    uses : Tensor
        How often each code was chosen since the counts were last cleared, int64 [K, N].
    recent : Tensor
        Latents of the last steps, [rows, latent]: what codes are seeded from.
    """

    def __init__(self, settings: TrainSettings, world: World) -> None:
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
        self.optimizer = self._adam(self.model, settings.learning_rate)
        self.discriminators: Discriminators | None = None
        self.discriminator_optimizer: torch.optim.Optimizer | None = None
        if settings.adversarial:
            self.discriminators = Discriminators(discriminator_config(settings)).to(world.device)
            self.discriminator_optimizer = self._adam(self.discriminators, settings.discriminator_learning_rate)
        self._parallel_model = self._parallel(self.model)
        self._parallel_discriminators = self._parallel(self.discriminators) if self.discriminators else None
        self.reconstruction = Reconstruction(settings, self.config.sample_rate_hz).to(world.device)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.uses = torch.zeros(
            self.config.n_codebooks, self.config.codebook_size, dtype=torch.int64, device=world.device
        )
        self.recent = torch.zeros(0, self.config.latent_dim, device=world.device)
        self.channel = RateChannel(self.config.latent_dim).to(world.device)
        self.step = 0
        self.skipped_steps = 0

    def _adam(self, module: nn.Module, rate: float) -> torch.optim.Optimizer:
        learning = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
        groups = [
            {"params": [weight for name, weight in learning if name.endswith("log_alpha") == of_snake], "share": share}
            for of_snake, share in ((False, 1.0), (True, self.settings.snake_rate_share))
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=rate, betas=(0.8, 0.99), weight_decay=1e-3, fused=True)

    def _parallel(self, module: nn.Module) -> nn.Module:
        if self.world.size == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=True)

    def train_step(self, wave: Tensor) -> dict[str, Tensor]:
        """Learn from this process's rows of the batch of step `self.step`, [rows, T]; return the loss terms."""
        settings, rows = self.settings, self.world.rows(self.settings.batch)
        torch.manual_seed(settings.seed * 1_000_003 + self.step)
        wave = wave.to(self.world.device, non_blocking=True)
        if 0 < settings.encoder_steps == self.step:
            self._fix_encoder()
        if 0 < self.step == settings.unquantized_steps and not settings.freeze_encoder:
            self._seed_codebooks(torch.ones_like(self.uses, dtype=torch.bool))
        share = draws.learning_rate_share(settings, self.step)
        _set_rate(self.optimizer, settings.learning_rate * share)
        used = draws.codebooks_used(settings, self.config.n_codebooks, self.step)[rows.start : rows.stop]
        heard = draws.frames_heard(settings, self.step)[rows.start : rows.stop]
        channel = self._channel_for(used) if self.step < settings.unquantized_steps else None
        self.model.quantizer.train(not self.encoder_is_fixed)
        with self._autocast():
            made, latent, quantized = self._parallel_model(
                wave,
                used.to(self.world.device),
                heard.to(self.world.device),
                channel=channel,
                learn_encoder=not self.encoder_is_fixed,
            )
        made = made.float()
        fooling = self._parallel_discriminators is not None and self.step >= settings.adversarial_from_step
        terms = self._discriminator_step(made.detach(), wave, share) if fooling else {}
        terms |= self._generator_terms(made, wave, quantized, fooling)
        weights = loss_weights(settings)
        total = sum((weights[name] * term for name, term in terms.items() if name in weights), made.new_zeros(()))
        self.optimizer.zero_grad()
        torch.autograd.backward(total)
        terms["gradient"] = self._apply(self.optimizer, self.model, settings.gradient_clip)
        self._remember(latent.detach().float())
        self._follow(quantized)
        self.step += 1
        self._reseed()
        return {name: term.detach() for name, term in terms.items()} | {"total": total.detach()}

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

    def _generator_terms(
        self, made: Tensor, wave: Tensor, quantized: Quantized | None, fooling: bool
    ) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = self.reconstruction(made, wave, self.step)
        if quantized is not None and not self.encoder_is_fixed:
            terms["codebook"] = quantized.codebook_loss
            terms["commitment"] = quantized.commitment_loss
        if fooling and self.discriminators is not None:
            self.discriminators.requires_grad_(False)
            with self._autocast():
                judged = self.discriminators(made)
                with torch.no_grad():
                    real = self.discriminators(wave)
            self.discriminators.requires_grad_(True)
            terms["adversarial"] = losses.generator_loss(judged)
            terms["feature"] = losses.feature_matching_loss(judged, real)
        return terms

    def _discriminator_step(self, made: Tensor, wave: Tensor, share: float) -> dict[str, Tensor]:
        assert self._parallel_discriminators is not None
        assert self.discriminators is not None
        assert self.discriminator_optimizer is not None
        _set_rate(self.discriminator_optimizer, self.settings.discriminator_learning_rate * share)
        with self._autocast():
            maps = self._parallel_discriminators(torch.cat([made, wave]))
        clips = made.shape[0]
        loss = losses.discriminator_loss(
            [[level[:clips] for level in one] for one in maps], [[level[clips:] for level in one] for one in maps]
        )
        self.discriminator_optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._apply(self.discriminator_optimizer, self.discriminators, self.settings.gradient_clip)
        return {"discriminator": loss}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def _apply(self, optimizer: torch.optim.Optimizer, module: nn.Module, clip: float) -> Tensor:
        """Step unless the gradient is not finite; return its norm before clipping."""
        norm = nn.utils.clip_grad_norm_(module.parameters(), clip)
        if torch.isfinite(norm):
            optimizer.step()
        else:
            self.skipped_steps += 1
        return norm

    @torch.no_grad()
    def _follow(self, quantized: Quantized | None) -> None:
        """Advance the moving average and the counts of codes."""
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        names = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in names], [state[name] for name in names], 1 - decay)
        self.world.sum(self.channel.moments).div_(self.world.size)
        if quantized is not None:
            for k, row in enumerate(self.uses):
                row += torch.bincount(quantized.codes[..., k].flatten(), minlength=row.numel())

    def _remember(self, latent: Tensor) -> None:
        """Keep the latents of all processes, unless some are not finite, for seeding codes."""
        rows = self.world.gather(latent).flatten(0, 1)
        if bool(torch.isfinite(rows).all()):
            self.recent = torch.cat([rows, self.recent])[: self.settings.seed_rows]

    def _reseed(self) -> None:
        """Replace codes that nobody used since the counts were last cleared."""
        every = self.settings.reseed_steps
        since = self.step - self.settings.unquantized_steps
        if not every or since <= 0 or since % every or self.encoder_is_fixed:
            return
        self.world.sum(self.uses)
        if self.step <= self.settings.reseed_until * self.settings.steps:
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
        if self.discriminators is not None and self.discriminator_optimizer is not None:
            state["discriminators"] = self.discriminators.state_dict()
            state["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        return state

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
        self.optimizer.load_state_dict(state["optimizer"])
        self.uses.copy_(state["uses"])
        self.recent = state["recent"].to(self.world.device)
        self.channel.load_state_dict(state["channel"])
        if self.discriminators is not None and self.discriminator_optimizer is not None and "discriminators" in state:
            self.discriminators.load_state_dict(state["discriminators"])
            self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])

    def load_model(self, model: CodecModel) -> None:
        """Start from another model's weights, with fresh optimisers.

        Codebooks of another kind or shape are not taken over: those of this run are seeded from the encoder's latents.

        Raises
        ------
        ConfigError
            It is a model of another shape.
        """
        state = model.state_dict()
        own = self.model.state_dict()
        books = {name for name in own.keys() | state.keys() if name.startswith("quantizer.")}
        if any(name not in own or name not in state or own[name].shape != state[name].shape for name in books):
            if not self.settings.unquantized_steps:
                raise ConfigError(
                    "the codebooks to start from are of another kind; give them unquantized_steps to seed"
                )
            state = {name: value for name, value in state.items() if name not in books}
            state |= {name: value for name, value in own.items() if name in books}
        try:
            self.model.load_state_dict(state)
        except RuntimeError:
            raise ConfigError(
                f"the weights to start from are of {model.config.to_json()}; these settings make a model of "
                f"{self.config.to_json()}"
            ) from None
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
