"""The commands that hold other commands."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

app = typer.Typer(
    name="crosspatch",
    help="Which transcriptomic subclass is this neuron? Learn from Patch-seq, carry over to human.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

cohort_app = typer.Typer(help="Build and describe cohort tables.", no_args_is_help=True)
app.add_typer(cohort_app, name="cohort")

model_app = typer.Typer(help="Look at trained models.", no_args_is_help=True)
app.add_typer(model_app, name="model")

fetch_app = typer.Typer(help="Get tables and recordings from where they are published.")
app.add_typer(fetch_app, name="fetch")


def _show_version(value: bool) -> None:
    if value:
        print(f"crosspatch {version('crosspatch')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass
