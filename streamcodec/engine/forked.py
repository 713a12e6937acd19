"""In a forked process torch computes on one thread: there are none of the others, and it would wait for them."""

from __future__ import annotations

import os
from functools import partial

import torch

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
