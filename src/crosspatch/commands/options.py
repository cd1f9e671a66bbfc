"""Options that several commands have, written once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    pass


class ManyValues(TyperCommand):
    """Lets an option that can be repeated take several values: `--models forest boosting`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
        many = {
            name
            for option in self.params
            if getattr(option, "multiple", False)
            for name in option.opts
        }
        spread: list[str] = []
        current = None
        for arg in args:
            if arg.startswith("-"):
                option, _, value = arg.partition("=")
                current = option if option in many else None
                fresh = not value
            elif current is not None and not fresh:
                spread.append(current)
            else:
                fresh = False
            spread.append(arg)
        return super().parse_args(ctx, spread)


DataDirOption = Annotated[
    Path | None,
    typer.Option(help="Data directory (default: $CROSSPATCH_DATA, else the user's cache)."),
]


UnverifiedOption = Annotated[
    bool, typer.Option("--unverified", help="Accept source files other than the pinned versions.")
]


TimeLimitOption = Annotated[
    float | None, typer.Option(min=1, help="Seconds after which nothing is tried again.")
]


DandisetOption = Annotated[str, typer.Option(help="Six digits, such as 000020; see fetch --list.")]


SubclassesOption = Annotated[list[str] | None, typer.Option(help="Only cells of these subclasses.")]


CellNamesOption = Annotated[
    list[str] | None,
    typer.Option("--cells", help="Only these cells: specimen, session, donor or file name."),
]


MostOption = Annotated[int | None, typer.Option(min=1, help="At most so many recordings.")]


UnlabelledOption = Annotated[
    bool, typer.Option("--unlabelled", help="Take cells without a label too.")
]


StepStartOption = Annotated[
    float | None,
    typer.Option(help="Start of the step in s, where files have no command waveform."),
]


StepEndOption = Annotated[float | None, typer.Option(help="End of the step in s.")]


AmplitudesOption = Annotated[
    str | None,
    typer.Option(
        help="AmplitudesOption in pA, one a sweep, or one for all: -100,-50,0,50 or -100:300:20."
    ),
]


DeviceOption = Annotated[str, typer.Option(help="cpu or cuda, for the sequence models.")]


JobsOption = Annotated[
    int | None, typer.Option(min=1, help="Processes. (default: the number of cores)")
]


LimitOption = Annotated[float, typer.Option(min=1, help="Seconds after which a file is given up.")]


QualityOption = Annotated[str, typer.Option(help="Thresholds: default, allen or any.")]


CohortOption = Annotated[
    list[str] | None,
    typer.Option(
        help="allen, simulated, auto (allen if the data directory has it, else simulated), or "
        "cohort tables (.h5ad), one a species. (default: auto)"
    ),
]


FeaturesOption = Annotated[
    str | None,
    typer.Option(
        help="shared, or full (allen-human only); gouwens or paper for simulated cohorts. "
        "(default: shared; gouwens for simulated)"
    ),
]


ProtocolOption = Annotated[str, typer.Option(help="donor, published or quick.")]


AlignmentOption = Annotated[
    str, typer.Option(help="Mouse Sncg counts as Vip (hodge2019) or Lamp5 (published-code).")
]


SeedOption = Annotated[int, typer.Option(min=0, help="SeedOption of folds and models.")]
