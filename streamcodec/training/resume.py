"""The state of a run on disk: pieces of bounded size, and an index that is renamed into place last."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from streamcodec.errors import CheckpointError
from streamcodec.files import write_bytes, write_text

INDEX = "resume.json"


def save_state(folder: Path, state: dict[str, Any], piece_bytes: int) -> None:
    """Write `state` to pieces of at most `piece_bytes`; the previous state stays until this one is complete."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    digest = hashlib.sha256(data).hexdigest()
    names = []
    for number, start in enumerate(range(0, len(data), piece_bytes)):
        name = f"resume-{state['step']:08d}-{digest[:8]}.{number:03d}"
        write_bytes(folder / name, data[start : start + piece_bytes])
        names.append(name)
    write_text(folder / INDEX, json.dumps({"step": state["step"], "sha256": digest, "pieces": names}, indent=1))
    for old in folder.glob("resume-*.[0-9][0-9][0-9]"):
        if old.name not in names:
            old.unlink()


def load_state(folder: Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote; None when there is nothing.

    Raises
    ------
    CheckpointError
        A piece is missing or damaged.
    """
    index = folder / INDEX
    if not index.is_file():
        return None
    try:
        facts = json.loads(index.read_text())
        data = b"".join((folder / Path(name).name).read_bytes() for name in facts["pieces"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} cannot be read: {error}; delete it to start afresh") from None
    if hashlib.sha256(data).hexdigest() != facts.get("sha256"):
        raise CheckpointError(f"the pieces named in {index} are damaged; delete it to start afresh")
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state
