"""Weights to start a run from: those of another model, as far as they fit."""

from __future__ import annotations

from streamcodec.errors import ConfigError
from streamcodec.nn.model import CodecModel


def take_weights(model: CodecModel, start: CodecModel, *, seeds_codebooks: bool) -> None:
    """Give `model` the weights of `start`; codebooks of another kind or shape stay, if the run will seed them.

    Raises
    ------
    ConfigError
        It is a model of another shape, or its codebooks do not fit and the run seeds none.
    """
    state, own = start.state_dict(), model.state_dict()
    books = {name for name in own.keys() | state.keys() if name.startswith("quantizer.")}
    if any(name not in own or name not in state or own[name].shape != state[name].shape for name in books):
        if not seeds_codebooks:
            raise ConfigError("the codebooks to start from are of another kind; give them unquantized_steps to seed")
        state = {name: value for name, value in state.items() if name not in books}
        state |= {name: value for name, value in own.items() if name in books}
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise ConfigError(
            f"the weights to start from are of {start.config.to_json()}; these settings make a model of "
            f"{model.config.to_json()}"
        ) from None
