"""A streaming neural audio codec: 13.3 ms frames, a few bytes each, real time on one CPU core."""
