"""Folders of audio as shards of codes, for training language models (docs/tokenize.md)."""

from streamcodec.tokens.reader import TokenDataset
from streamcodec.tokens.shards import TokenFile

__all__ = ["TokenDataset", "TokenFile"]
