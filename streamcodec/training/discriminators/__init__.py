"""Networks that learn to tell made waveforms from real ones.

`Discriminators(DiscriminatorConfig(...))` holds any of three kinds, each in a full size (the published widths) and a
slim one for small models and CPUs.
"""

from streamcodec.training.discriminators.config import DiscriminatorConfig
from streamcodec.training.discriminators.ensemble import Discriminators

__all__ = ["DiscriminatorConfig", "Discriminators"]
