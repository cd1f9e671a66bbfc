"""The entry: every command, and errors of the user in one line."""

from __future__ import annotations

import sys
import traceback

from crosspatch.commands import (
    annotate,
    cohort,
    convert,
    doctor,
    explain,
    extract,
    fetch,
    inspecting,
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
    *(annotate, cohort, convert, doctor, explain, extract, fetch, inspecting, predict, run),
    *(serve, train, validate, watch),
)


def main() -> None:
    """Run the command line; see `crosspatch.commands.root.EXIT_CODES`."""
    try:
        app(prog_name="crosspatch")
    except CrosspatchError as error:
        say_on_stderr(error)
        sys.exit(2)
    except Exception:  # a fault of ours
        traceback.print_exc()
        sys.exit(3)
