"""Options that several commands have, written once."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

import typer
from typer.core import TyperCommand

from crosspatch.commands.completion import (
    complete_cohort,
    complete_model,
    complete_protocol,
    complete_species,
    one_of,
)
from crosspatch.errors import CohortError
from crosspatch.processes import cores, use_one_thread
from crosspatch.species import SPECIES

if TYPE_CHECKING:
    from anndata import AnnData

    from crosspatch.prediction.pipeline import Request
    from crosspatch.recordings.reading_options import Reading

#: Makes a `Request` of inputs, with what else was asked for.
Asked: TypeAlias = "Callable[..., Request]"

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
    str,
    typer.Option(
        help="Mouse Sncg counts as Vip (hodge2019) or Lamp5 (published-code).",
        autocompletion=one_of("hodge2019", "published-code"),
    ),
]
CellNames = Annotated[
    list[str] | None,
    typer.Option("--cells", help="Only these cells: specimen, session, donor or file name."),
]
CohortNames = Annotated[
    list[str] | None,
    typer.Option(
        help="allen, simulated, auto (allen if the data directory has it, else simulated), "
        "datasets by name (those of a species together), or cohort tables (.h5ad), one per "
        "species. (default: auto)",
        autocompletion=complete_cohort,
    ),
]
ColumnsFile = Annotated[
    Path | None, typer.Option(help="YAML file that says which column of a table is what.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Data directory (default: $CROSSPATCH_DATA, else the user's cache)."),
]
Device = Annotated[
    str,
    typer.Option(
        help="cpu or cuda, for the sequence models.", autocompletion=one_of("cpu", "cuda")
    ),
]
Features = Annotated[
    str | None,
    typer.Option(
        help="shared, or full (human only); gouwens or paper for simulated cohorts. "
        "(default: shared; gouwens for simulated)",
        autocompletion=one_of("shared", "full", "gouwens", "paper"),
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
HumanLabels = Annotated[
    str | None,
    typer.Option(
        "--taxonomy",
        help="Human labels: lee2023 or sea-ad. (default: lee2023)",
        autocompletion=one_of("lee2023", "sea-ad"),
    ),
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
    list[str] | None,
    typer.Option(
        help="Models by name (`crosspatch models`). (default: a choice)",
        autocompletion=complete_model,
    ),
]
OutFolder = Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")]
ProtocolName = Annotated[
    str,
    typer.Option(
        help="donor, published or quick; `run` also has dataset, which holds out each one whole.",
        autocompletion=complete_protocol,
    ),
]
Runs = Annotated[int | None, typer.Option(min=1, help="Repetitions. (default: the protocol's)")]
Seed = Annotated[int, typer.Option(min=0, help="Of whatever is drawn at random.")]
Adapt = Annotated[
    bool,
    typer.Option(
        help="Move a batch that is plainly shifted as a whole, as by another rig, onto the "
        "reference before it is judged."
    ),
]
MyLabelled = Annotated[
    Path | None, typer.Option(help="Table of some cells of your own rig whose subclass is known.")
]
MyLabel = Annotated[str | None, typer.Option(help="Its column with the subclasses.")]
SetsKind = Annotated[
    str,
    typer.Option(
        help="Prediction sets that cover 90 % of all-cells, or of the cells by-class.",
        autocompletion=one_of("all-cells", "by-class"),
    ),
]
CellSpecies = Annotated[
    str | None,
    typer.Option(
        help=f"{KNOWN_SPECIES}, for cells whose file does not say.", autocompletion=complete_species
    ),
]
CellLayer = Annotated[
    str | None,
    typer.Option(
        "--layer", help="Cortical layer, such as 2/3, of cells whose file does not say it."
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option(help="Sheet of workbooks, its name or number. (default: that with most features)"),
]
Subclasses = Annotated[
    list[str] | None, typer.Option("--subclass", help="Only cells of these subclasses.")
]
Unlabelled = Annotated[bool, typer.Option("--unlabelled", help="Take cells without a label too.")]
Unverified = Annotated[
    bool, typer.Option("--unverified", help="Accept source files other than the pinned versions.")
]


def _reading(
    *,
    quality: Annotated[
        str,
        typer.Option(
            help="Thresholds: default, allen or any; or limits: drift=5,access_high=30.",
            autocompletion=one_of("default", "allen", "any"),
        ),
    ] = "default",
    step_start: Annotated[
        float | None,
        typer.Option(help="Start of the step in s, where files have no command waveform."),
    ] = None,
    step_end: Annotated[float | None, typer.Option(help="End of the step in s.")] = None,
    amplitudes: Annotated[
        str | None,
        typer.Option(
            help="In pA, one for each sweep, or one for all: -100,-50,0,50 or -100:300:20."
        ),
    ] = None,
    clamp: Annotated[
        str | None,
        typer.Option(help="current: take the sweeps for current clamp, whatever the file says."),
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Name or number of the input that holds the potential.")
    ] = None,
    electrode: Annotated[
        str | None,
        typer.Option(help="Name or number of the electrode (output) whose sweeps are read."),
    ] = None,
    junction_potential: Annotated[
        float,
        typer.Option(
            metavar="MV",
            help="Liquid junction potential that the file's potentials are corrected for already; "
            "added back, since the reference cells are not corrected.",
        ),
    ] = 0.0,
    offset_mv: Annotated[
        float, typer.Option(metavar="MV", help="By how much the file's potentials are too high.")
    ] = 0.0,
) -> Reading:
    """How recordings are read, from the options above."""
    from crosspatch.recordings.reading_options import Reading

    return Reading(
        quality,
        step_start,
        step_end,
        amplitudes,
        clamp,
        channel,
        electrode,
        junction_potential,
        offset_mv,
    )


def _own_table(
    *,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Table of your own labelled cells, one row per cell (csv, Excel, parquet, …): its "
            "numeric columns are the features."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Of your own table, the column with the classes.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="The column with the donors. (default: every cell has its own)"),
    ] = None,
    species: Annotated[
        str | None,
        typer.Option(
            help=f"{KNOWN_SPECIES}: where the table does not say, and which of a table of both.",
            autocompletion=complete_species,
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Columns that are features, and no others: a,b,c.")
    ] = None,
    without: Annotated[str | None, typer.Option(help="Columns that are left out: a,b,c.")] = None,
    columns: ColumnsFile = None,
    sheet: Sheet = None,
) -> AnnData | None:
    """The cohort of a laboratory's own table, from the options above; None without one."""
    of_table: dict[str, object] = {"label": label, "group": group, "species": species}
    of_table |= {"only": only, "without": without, "columns": columns, "sheet": sheet}
    if table is None:
        if given := [name for name, value in of_table.items() if value is not None]:
            one = "{" + given[0] + "}"
            raise CohortError("", f"{one} is for a table of your own; give {{table}} as well")
        return None
    if label is None:
        raise CohortError(f"{table}: which column has the labels is not said", "give {label}")
    from crosspatch.cohorts.labelled import load_labelled

    def names(text: str | None) -> list[str]:
        """Names separated by commas; one of a csv file's header may be in quotes."""
        return [name.strip() for name in next(csv.reader([text or ""], skipinitialspace=True), [])]

    return load_labelled(
        table,
        label=label,
        group=group,
        species=species,
        columns=columns,
        only=names(only),
        without=names(without),
        sheet=sheet,
    )


def with_own_table(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `own` is the cohort of a table, from options in its place."""
    return _with_options(command, "own", _own_table)


def with_reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose parameter `reading` is made from options, which stand where it stood.

    Commands that read recordings calculate little themselves, so numpy takes one thread.
    """

    def reading(**given: Any) -> Reading:
        use_one_thread()
        return _reading(**given)

    return _with_options(command, "reading", wraps(_reading)(reading))


def _asked(
    *,
    model: ModelFolders = None,
    species: CellSpecies = None,
    layer: CellLayer = None,
    sets: SetsKind = "all-cells",
    adapt: Adapt = True,
    my_labelled: MyLabelled = None,
    my_label: MyLabel = None,
    reading: Reading,
    jobs: SomeProcesses = None,
    limit: Limit = 300.0,
    data_dir: DataDir = None,
) -> Asked:
    """How recordings are predicted, from the options above."""
    from crosspatch.prediction.pipeline import request

    settings = dict(locals())
    del settings["request"]
    models = settings.pop("model") or ()
    return lambda inputs, **of_tables: request(inputs, models, **settings, **of_tables)


def with_request(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `asked` makes a request of inputs, from options in its place."""
    return _with_options(command, "asked", with_reading(_asked))


def _with_options(
    command: Callable[..., Any], name: str, make: Callable[..., object]
) -> Callable[..., Any]:
    """A command one of whose parameters is made from the options of a function, in its place."""
    chosen = _typed_parameters(make)
    parameters: list[inspect.Parameter] = []
    for each in _typed_parameters(command):
        parameters += chosen if each.name == name else [each]

    @wraps(command)
    def run(**given: Any) -> Any:
        how = {each.name: given.pop(each.name) for each in chosen}
        return command(**{name: make(**how)}, **given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _typed_parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    """The parameters of a function, with their types; those made of options are not looked up."""
    known = {
        **inspect.unwrap(function).__globals__,
        "Reading": object,
        "AnnData": object,
        "Asked": object,
    }
    types = get_type_hints(function, known, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return [each.replace(annotation=types[each.name]) for each in parameters]
