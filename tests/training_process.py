"""One of several processes that train together: python training_process.py FOLDER STEPS, RANK and so on being set.

Each *.json in FOLDER holds settings of a run; the first process leaves its state in *.pt.
"""

import os
import sys
from pathlib import Path

import torch
from small_training import CONFIG, stepped

from streamcodec.training import shapes as shapes_module
from streamcodec.training.settings import TrainSettings
from streamcodec.training.trainer import Trainer
from streamcodec.training.world import World

if __name__ == "__main__":
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    shapes_module.PRESETS = {"small": CONFIG}
    world = World.join("cpu", os.environ)
    for path in sorted(folder.glob("*.json")):
        trainer = stepped(steps, Trainer(TrainSettings.from_json(path.read_text()), world), world)
        if world.rank == 0:
            torch.save(trainer.state(), path.with_suffix(".pt"))
    world.leave()
