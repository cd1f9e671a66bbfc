"""The entry: every command, and errors of the user in one line."""

from __future__ import annotations

import sys

from crosspatch.commands import (
    annotate,
    cohort,
    convert,
    explain,
    extract,
    fetch,
    predict,
    run,
    serve,
    train,
    validate,
    watch,
)
from crosspatch.commands.printing import say_on_stderr
from crosspatch.commands.root import app
from crosspatch.errors import CrosspatchError

#: Importing a module registers its commands.
MODULES = (
    cohort,
    fetch,
    extract,
    convert,
    run,
    train,
    predict,
    annotate,
    watch,
    validate,
    serve,
    explain,
)


def main() -> None:
    """Run the command line; errors of the user are one line and exit code 2."""
    try:
        app()
    except CrosspatchError as error:
        say_on_stderr(error)
        sys.exit(2)
