"""The entry: every command, and errors of the user in one line."""

from __future__ import annotations

import sys

from crosspatch.commands import cohort, explain, fetch, predict, recordings, run, serve
from crosspatch.commands.root import app
from crosspatch.errors import CrosspatchError, one_line

#: Importing a room registers its commands; this is the order in which `--help` lists them.
ROOMS = (cohort, fetch, recordings, run, predict, serve, explain)


def main() -> None:
    """Run the command line; errors of the user are one line and exit code 2."""
    try:
        app()
    except CrosspatchError as error:
        print(f"crosspatch: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
