"""`python -m streamcodec` is the command line."""

from streamcodec.cli import main

main()
