"""The commands that hold other commands, and how all are made known and listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

#: What people come for, in the order of the help, with an example of each.
PURPOSES = {
    "My cells": "crosspatch predict cell.abf --species mouse",
    "Train and compare": "crosspatch run --models forest vote --protocol quick --out results",
    "Data": "crosspatch fetch tables",
    "Serve": "crosspatch serve --open",
}

#: How a command ends.
EXIT_CODES = {
    0: "done",
    1: "done, but some of the inputs could not be read; which is said",
    2: "an option or an input is wrong: one line says what to do; nothing was done",
    3: "a fault of crosspatch itself, with a traceback: please report it",
    130: "stopped with Ctrl-C",
}


class _ByPurpose(TyperGroup):
    """Lists commands by what they are for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands of each purpose, and an example."""
        commands: list[tuple[str, Any]] = sorted(self.commands.items())
        panels = [each.rich_help_panel for _, each in commands]
        for purpose in dict.fromkeys([*PURPOSES, *panels]):
            named = [each for each in commands if each[1].rich_help_panel == purpose]
            if not named:
                continue
            with formatter.section(purpose or "Commands"):
                formatter.write_dl([(name, each.get_short_help_str(200)) for name, each in named])
                if purpose in PURPOSES:
                    formatter.write_paragraph()
                    formatter.write_text(f"Example: {PURPOSES[purpose]}")


class _Root(_ByPurpose):
    """Ends its help with the exit codes."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])


app = typer.Typer(
    name="crosspatch",
    cls=_Root,
    help="Which transcriptomic subclass is this neuron? Learn from Patch-seq, carry over to human.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _group(name: str, purpose: str, about: str) -> typer.Typer:
    """A command that holds others."""
    group = typer.Typer(cls=_ByPurpose, help=about, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=name, rich_help_panel=purpose)
    return group


cohort_app = _group("cohort", "Data", "Build, describe and export cohort tables.")
model_app = _group("model", "Train and compare", "Look at trained models.")
fetch_app = _group("fetch", "Data", "Get tables and recordings from where they are published.")


def command(
    name: str,
    purpose: str | None,
    example: str,
    group: typer.Typer = app,
    cls: type[TyperCommand] = TyperCommand,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function a command of this name, which the help lists with others of its purpose.

    One of a group within the program has no purpose of its own. The example is shown by its help.
    """
    shown = f"Example: crosspatch {example}"
    return group.command(name, cls=cls, rich_help_panel=purpose, epilog=shown)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

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
