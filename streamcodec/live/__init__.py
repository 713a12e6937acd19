"""From microphone to speaker: pipeline, latency accounting, concealment."""
