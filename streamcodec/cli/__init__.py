"""The command line, one file a verb; a verb's file is imported when it is called."""

from __future__ import annotations

import importlib
import sys
from importlib.resources import files

import click

from streamcodec.errors import StreamcodecError


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

    def invoke(self, ctx: click.Context) -> object:
        """Run; an expected error becomes one line on stderr and exit code 1."""
        try:
            return super().invoke(ctx)
        except StreamcodecError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            sys.exit(1)
        except OSError as error:
            if error.filename is None:
                raise
            click.echo(f"{type(error).__name__}: {error.filename}: {error.strerror}", err=True)
            sys.exit(1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamcodec")
def main() -> None:
    """Streaming neural audio codec."""
