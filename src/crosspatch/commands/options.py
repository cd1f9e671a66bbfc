"""Options that several commands have, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from crosspatch.processes import cores
from crosspatch.species import SPECIES

#: Every species there is, in words.
KNOWN_SPECIES = " or ".join(sorted(SPECIES))


class ManyValues(TyperCommand):
    """Lets an option that can be repeated take several values: `--models forest boosting`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
        repeated = [option for option in self.params if getattr(option, "multiple", False)]
        many = {name for option in repeated for name in option.opts}
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


AlignmentName = Annotated[
    str, typer.Option(help="Mouse Sncg counts as Vip (hodge2019) or Lamp5 (published-code).")
]
Amplitudes = Annotated[
    str | None,
    typer.Option(help="In pA, one for each sweep, or one for all: -100,-50,0,50 or -100:300:20."),
]
CellNames = Annotated[
    list[str] | None,
    typer.Option("--cells", help="Only these cells: specimen, session, donor or file name."),
]
CohortNames = Annotated[
    list[str] | None,
    typer.Option(
        help="allen, simulated, auto (allen if the data directory has it, else simulated), or "
        "cohort tables (.h5ad), one per species. (default: auto)"
    ),
]
ColumnsFile = Annotated[
    Path | None, typer.Option(help="YAML file that says which column of a table is what.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Data directory (default: $CROSSPATCH_DATA, else the user's cache)."),
]
Device = Annotated[str, typer.Option(help="cpu or cuda, for the sequence models.")]
Features = Annotated[
    str | None,
    typer.Option(
        help="shared, or full (allen-human only); gouwens or paper for simulated cohorts. "
        "(default: shared; gouwens for simulated)"
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        min=1, default_factory=cores, show_default="the number of cores", help="Processes."
    ),
]
#: For a command that may need but one process: None is the number of cores.
SomeProcesses = Annotated[
    int | None, typer.Option(min=1, show_default="the number of cores", help="Processes.")
]
TableOut = Annotated[Path, typer.Option("-o", "--out", help="File to write, .h5ad.")]
Limit = Annotated[float, typer.Option(min=1, help="Seconds after which a file is given up.")]
ModelFolders = Annotated[
    list[Path] | None,
    typer.Option(
        help="Model folder; repeat it for another species. (default: trained once from the data "
        "directory)"
    ),
]
ModelNames = Annotated[
    list[str] | None, typer.Option(help="Models by name (`crosspatch models`). (default: a choice)")
]
OutFolder = Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")]
ProtocolName = Annotated[str, typer.Option(help="donor, published or quick.")]
Quality = Annotated[str, typer.Option(help="Thresholds: default, allen or any.")]
Seed = Annotated[int, typer.Option(min=0, help="Of whatever is drawn at random.")]
SetsKind = Annotated[
    str,
    typer.Option(help="Prediction sets that cover 90 % of all-cells, or of the cells by-class."),
]
CellSpecies = Annotated[
    str | None, typer.Option(help=f"{KNOWN_SPECIES}, for cells whose file does not say.")
]
StepEnd = Annotated[float | None, typer.Option(help="End of the step in s.")]
StepStart = Annotated[
    float | None, typer.Option(help="Start of the step in s, where files have no command waveform.")
]
Subclasses = Annotated[
    list[str] | None, typer.Option("--subclass", help="Only cells of these subclasses.")
]
Unlabelled = Annotated[bool, typer.Option("--unlabelled", help="Take cells without a label too.")]
Unverified = Annotated[
    bool, typer.Option("--unverified", help="Accept source files other than the pinned versions.")
]
