"""Networks that learn to tell made waveforms from real ones.

`Discriminators(DiscriminatorConfig(...))` holds any of three kinds, each in a full size (the published widths) and a
slim one for small models; `ONE_CORE` is a choice that a CPU can afford.
"""

from streamcodec.training.discriminators.config import ONE_CORE, DiscriminatorConfig, Size
from streamcodec.training.discriminators.ensemble import Discriminators

__all__ = ["ONE_CORE", "DiscriminatorConfig", "Discriminators", "Size"]
