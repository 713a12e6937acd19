"""Quality measures, one a file."""
