"""The command line, one file a verb; a verb's file is imported when it is called."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
from importlib.resources import files
from typing import Any

import click

from streamcodec.errors import StreamcodecError
from streamcodec.files import printable
from streamcodec.stopping import stopping_on_signals

BROKEN_PIPE_EXIT_CODE = 128 + 13  # SIGPIPE, which Windows does not have
INTERRUPTED_EXIT_CODE = 128 + signal.SIGINT


class LazyGroup(click.Group):
    """Finds the command `x` in `streamcodec.cli.x`, and reports the errors that streamcodec raises on purpose."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs, from the files of this package."""
        names = (entry.name for entry in files("streamcodec.cli").iterdir())
        return sorted(name[:-3] for name in names if name.endswith(".py") and not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the file of one verb."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"streamcodec.cli.{cmd_name}").command
        return command

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line, whichever standard streams are closed; help that cannot be written is an error, too."""
        _stand_in_for_closed_streams()
        try:
            return super().main(*args, **extra)
        except OSError as error:
            _say(f"{type(error).__name__}: standard output: {error.strerror or error}")
        _leave_stdout()
        sys.exit(1)

    def invoke(self, ctx: click.Context) -> object:
        """Run; an expected error becomes one line on stderr and exit code 1, a signal exit code 128 + its number.

        Where the reader of a pipe has gone, it ends quietly, as if by SIGPIPE.
        """
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
        try:
            with stopping_on_signals():
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except BrokenPipeError:
            code = BROKEN_PIPE_EXIT_CODE
        except StreamcodecError as error:
            _say(f"{type(error).__name__}: {error}")
            code = 1
        except OSError as error:
            place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            _say(f"{type(error).__name__}: {place}{error.strerror or error}")
            code = 1
        except KeyboardInterrupt as error:
            _say(str(error) or "stopped")
            code = getattr(error, "exit_code", INTERRUPTED_EXIT_CODE)
        _leave_stdout()
        sys.exit(code)


def _stand_in_for_closed_streams() -> None:
    """Keep files from getting the numbers of standard streams that are closed, where stray messages would reach them.

    Reading from a closed standard input and writing to a closed standard output stay errors; reports are thrown away.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the program


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal is gone
        click.echo(printable(text), err=True)


def _leave_stdout() -> None:
    """Keep what could not be written to stdout from being tried, and complained of, again when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamcodec")
def main() -> None:
    """Streaming neural audio codec.

    Exit code: 0 done; 1 an error; 2 wrong usage; 3 done but for what was damaged or skipped; 128 + N stopped by
    signal N.
    """
