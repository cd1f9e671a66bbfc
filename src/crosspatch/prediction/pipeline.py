"""The one way from inputs to predictions: find, check, load the models, read, predict, explain."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, cast

from crosspatch.archive.dandi import is_dandi
from crosspatch.errors import CohortError, CrosspatchError, RecordingError
from crosspatch.features.cortical_layer import require_layer
from crosspatch.features.finding import Source, find_recordings
from crosspatch.features.layouts import load_layout
from crosspatch.prediction.batches import Batch, ReadSettings, SeenIds, read_recordings, unique
from crosspatch.prediction.in_turn import predict_batches
from crosspatch.prediction.prediction import Prediction, joined
from crosspatch.prediction.predictor import Predictor, load_predictor, require_sets
from crosspatch.recordings.formats import RECORDING_SUFFIXES, format_named
from crosspatch.recordings.reading_options import Reading
from crosspatch.species import require_species
from crosspatch.tables.endings import TABLE_SUFFIXES, suffix_of
from crosspatch.telling import Ask, Messages, Say, Stage, notebook_bars

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from crosspatch.features.many import ExtractionProgress
    from crosspatch.tables.mapping import Overrides
    from crosspatch.tables.opened import Table

#: What can be predicted: recordings, folders and tables on disk, dandisets, tables in memory.
Given: TypeAlias = "str | Path | pd.DataFrame | anndata.AnnData"


@dataclass(frozen=True)
class Request:
    """What is to be predicted, by which models, and how it is read.

    A CrosspatchError if a setting is unknown.
    """

    inputs: tuple[Given, ...]
    #: Model folders, one per species; none for the default models.
    models: tuple[str | Path, ...] = ()
    #: Of cells whose file does not say; without it such cells are judged by every model.
    species: str | None = None
    layer: str | float | None = None  # the cortical layer of cells whose file does not say
    columns: Overrides | None = None  # which column of a table is what
    sets: str = "all-cells"  # see `crosspatch.prediction.predictor.Predictor`
    adapt: bool = True
    #: The user's own cells whose class is known, and the column that says it.
    my_labelled: Given | None = None
    my_label: str | None = None
    reading: Reading = field(default_factory=Reading)  # how recordings are read
    sheet: str | int | None = None  # of workbooks, by name or number
    data_dir: str | Path | None = None  # for training the default models
    #: Recordings at a time, and processes that train the default models; None is one per core.
    jobs: int | None = 1
    limit: float = 300.0  # seconds after which a recording is given up

    @property
    def names(self) -> list[str]:
        """The inputs as the user calls them."""
        return [str(each) if isinstance(each, str | Path) else "table" for each in self.inputs]

    def __post_init__(self) -> None:
        require_species(self.species)
        require_layer(self.layer)
        require_sets(self.sets)
        if (self.my_labelled is None) != (self.my_label is None):
            raise CohortError(
                "labelled cells are a table and the column with their labels",
                "give {my_labelled} and {my_label}, both or neither",
            )


def request(
    inputs: Given | Sequence[Given],
    model: str | Path | Sequence[str | Path] = (),
    columns: str | Path | Overrides | None = None,
    **settings: object,
) -> Request:
    """A `Request` of one or several inputs and models; a mapping file is read."""
    several = [inputs] if _is_one(inputs) else list(cast("Sequence[Given]", inputs))
    folders = [model] if isinstance(model, str | Path) else list(model)
    if isinstance(columns, str | Path):
        from crosspatch.tables.mapping import read_mapping

        columns = read_mapping(columns)
    return Request(tuple(several), tuple(folders), columns=columns, **settings)  # type: ignore[arg-type]


def _is_one(inputs: Given | Sequence[Given]) -> TypeGuard[Given]:
    """Whether it is one input. What was not imported cannot have been given."""
    tables = (("pandas", "DataFrame"), ("anndata", "AnnData"))
    kinds = [getattr(sys.modules[room], name) for room, name in tables if room in sys.modules]
    return isinstance(inputs, (str, Path, *kinds))


@dataclass(frozen=True)
class Listener:
    """Who is told what happens, and asked."""

    say: Say  # told what was taken for what, and what went wrong
    ask: Ask | None = None  # asked about ambiguous columns; without it they are left out
    training: Stage | None = None  # told of the training of default models
    #: Spells a parameter in what is said of errors; see `crosspatch.errors.CrosspatchError`.
    spell: Callable[[str], str] = "'{}'".format

    def words(self, error: CrosspatchError) -> str:
        """What is said of an error, in one line."""
        return " ".join(error.in_words(self.spell).split())


#: Told how many recordings are measured.
Measured: TypeAlias = "Callable[[ExtractionProgress], None]"


@dataclass
class Inputs:
    """What was found among the inputs of a request."""

    recordings: list[Source] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    #: Inputs that could not be read, and why; grows while they are read.
    failed: dict[str, str] = field(default_factory=dict)

    def fail(self, name: str, error: CrosspatchError, listener: Listener) -> None:
        """Note, and say, that an input could not be read."""
        said = listener.words(error)
        listener.say(said)
        self.failed[name] = said.replace(f"{name}: ", "", 1).removeprefix(name).strip()


def find_inputs(given: Sequence[Given], listener: Listener) -> Inputs:
    """Sort inputs into recordings and tables, and say what is given twice.

    Of several, one that cannot be read costs a line; the only one is an error.
    """
    found = Inputs()
    seen: set[Source] = set()
    for each in given:
        if not isinstance(each, str | Path):
            found.tables.append(each)
            continue
        try:
            known, there = _sorted(each, found)
        except CrosspatchError as error:
            if len(given) == 1:
                raise
            found.fail(str(Path(each)), error, listener)
            continue
        for file in there:
            whole = file.resolve() if isinstance(file, Path) else file
            if whole in seen:
                listener.say(f"{file}: given twice, read once")
            else:
                seen.add(whole)
                known.append(file)
    return found


def _sorted(each: str | Path, found: Inputs) -> tuple[list[Source] | list[Table], Sequence[Source]]:
    """Where the files of an input belong, and which these are."""
    path = Path(each)
    if isinstance(each, str) and is_dandi(each):
        return found.recordings, find_recordings([each])
    if suffix_of(path) in TABLE_SUFFIXES and not path.is_dir():
        if not path.is_file():
            raise CohortError(f"{path} does not exist")
        return found.tables, [path]
    if path.is_file() and path.suffix.lower() not in RECORDING_SUFFIXES:
        if known := format_named(path.name):
            raise RecordingError(
                f"{path} is a recording of {known.name}, which is not read", known.export
            )
        raise RecordingError(
            f"{path}: not a file that can be read; give recordings "
            f"({', '.join(RECORDING_SUFFIXES)}) or tables ({', '.join(TABLE_SUFFIXES)})"
        )
    return found.recordings, find_recordings([path])


def _require_tables(inputs: Inputs, request: Request, listener: Listener) -> None:
    """Take from inputs the tables that cannot be read, before a model is loaded for them."""
    from crosspatch.prediction.table_cells import require_table

    layout = load_layout("shared")  # it has a name; which features the models have is not known yet
    how = ReadSettings(layout, request.species, request.columns, sheet=request.sheet)
    readable = []
    for table in inputs.tables:
        try:
            require_table(table, how, any_feature=bool(request.models))
        except CrosspatchError as error:
            inputs.fail(str(table) if isinstance(table, Path) else "table", error, listener)
        else:
            readable.append(table)
    inputs.tables = readable


def read_inputs(
    inputs: Inputs, settings: ReadSettings, listener: Listener, progress: Measured | None = None
) -> Iterator[Batch]:
    """Cells of recordings and tables, in batches; an input that cannot be read costs a line.

    It is noted in `inputs`. A recording that gives no feature is a cell without values, with the
    reason. `progress` is told after every recording.
    """
    seen = SeenIds()
    say = listener.say
    if inputs.recordings:
        try:
            batch = read_recordings(inputs.recordings, settings, say, progress, listener.words)
            yield unique(batch, seen, say)
        except CrosspatchError as error:
            said = listener.words(error)
            say(said)
            inputs.failed |= dict.fromkeys(map(str, inputs.recordings), said)
    if inputs.tables:
        from crosspatch.prediction.table_cells import read_table  # recordings need none of it
    for table in inputs.tables:
        try:
            for batch in read_table(table, settings, say, ask=listener.ask):
                yield unique(batch, seen, say)
        except CrosspatchError as error:
            inputs.fail(str(table) if isinstance(table, Path) else "table", error, listener)


class Pipeline:
    """Inputs that were checked, and the models that judge them.

    A CrosspatchError if no input can be read, which is known before a model is loaded or trained,
    or a model cannot be loaded. Where inputs come later, nothing is looked for.
    """

    def __init__(self, request: Request, listener: Listener, *, later: bool = False):
        self.listener = listener
        self.inputs = Inputs() if later else find_inputs(request.inputs, listener)
        if self.inputs.tables:
            _require_tables(self.inputs, request, listener)
        if not (later or self.inputs.recordings or self.inputs.tables):
            raise nothing_read(request)
        self.request = request
        self.predictor: Predictor = load_predictor(
            request.models,
            request.species,
            sets=request.sets,
            adapt=request.adapt,
            data_dir=request.data_dir,
            jobs=request.jobs,
            say=listener.say,
            progress=listener.training,
        )
        if request.layer is not None and not self.predictor.layout.has_layer:
            listener.say("the models do not take the cortical layer; it is not used")
        self.settings = ReadSettings(
            self.predictor.layout,
            request.species,
            request.columns,
            request.reading,
            request.sheet,
            request.jobs,
            request.limit,
            require_layer(request.layer),
            layouts=self.predictor.layouts,
        )
        mine, label, models = request.my_labelled, request.my_label, self.predictor.models
        if mine is not None and label is not None:
            from crosspatch.prediction.own_cells import own_cells

            own = own_cells(mine, label, models, self.settings, listener.say, listener.ask)
            self.predictor.labelled = own

    def batches(self, progress: Measured | None = None) -> Iterator[Batch]:
        """Cells as they are read; see `read_inputs`."""
        return read_inputs(self.inputs, self.settings, self.listener, progress)

    def predictions(self, progress: Measured | None = None) -> Iterator[Prediction]:
        """What the models say of every batch, as they are read."""
        found = predict_batches(self.predictor, self.batches(progress), self.listener.say)
        return (prediction for _, prediction in found)


def nothing_read(request: Request, done: str = "predicted") -> CohortError:
    """The error where no cell could be read."""
    return CohortError(f"no cell could be read from {', '.join(request.names)}; nothing was {done}")


def predict(  # noqa: PLR0913 - what the command line has as options
    inputs: Given | Sequence[Given],
    *,
    model: str | Path | Sequence[str | Path] = (),
    species: str | None = None,
    layer: str | float | None = None,
    columns: str | Path | Overrides | None = None,
    sheet: str | int | None = None,
    sets: str = "all-cells",
    adapt: bool = True,
    my_labelled: Given | None = None,
    my_label: str | None = None,
    reading: Reading | None = None,
    data_dir: str | Path | None = None,
    jobs: int = 1,
    say: Say | None = None,
) -> Prediction:
    """Predict the subclass of cells.

    Parameters
    ----------
    inputs : path, DataFrame, AnnData, or sequence of them
        Recordings (NWB, ABF, …), folders of them, tables (csv, Excel, ods, parquet, h5ad), or
        ``dandi:`` addresses; tables in memory.
    model : path or sequence of path
        Model folders, one per species; by default models trained once from the data directory.
    species : str, optional
        Of cells whose file does not say; without it such cells are judged by both.
    layer : str or float, optional
        Cortical layer of cells whose file does not say, such as ``2/3``, for models that take it.
        A table says it in a column, NWB by the location of its electrode. Without it they are
        judged by what was measured.
    columns : path or Overrides, optional
        Which column of a table is what; see `crosspatch.tables.mapping.read_mapping`.
    sheet : str or int, optional
        Of workbooks, its name or number from 1; by default that with the most features.
    sets : str
        ``all-cells``: prediction sets hold the true class of 90 % of all cells; ``by-class``: of
        90 % of the cells of each class.
    adapt : bool
        Whether a batch of cells that is plainly shifted as a whole is moved onto the reference.
    my_labelled : path, DataFrame or AnnData, optional
        A table of a few cells of the same rig whose subclass is known, which have a say.
    my_label : str, optional
        Its column with the subclasses.
    reading : Reading, optional
        How recordings are read, where a file does not say something or says it wrong.
    data_dir : path, optional
        Directory of the tables that default models are trained on.
    jobs : int
        Recordings at a time, and processes that train default models.
    say : callable, optional
        Told what was taken for what, and what went wrong, line by line, such as ``print``. Without
        it up to five lines are printed, of more the first; `Prediction.messages` has all.

    Returns
    -------
    Prediction

    Raises
    ------
    CrosspatchError
        If a model cannot be loaded or no input can be read.

    Examples
    --------
    >>> import crosspatch
    >>> crosspatch.predict("simulated/sim-human-0001.nwb", model="human-model")
    Prediction of 1 row (1 outside reference) by logistic of human cells
    """
    wanted = request(
        inputs,
        model,
        columns,
        species=species,
        layer=layer,
        sheet=sheet,
        sets=sets,
        adapt=adapt,
        my_labelled=my_labelled,
        my_label=my_label,
        reading=reading or Reading(),
        data_dir=data_dir,
        jobs=jobs,
    )
    messages = Messages(say)
    bars = notebook_bars()
    pipeline = Pipeline(wanted, Listener(messages, training=bars))
    measured = None if bars is None else lambda it: bars("recordings", it.done, it.total)
    parts = list(pipeline.predictions(measured))
    if not parts:
        raise nothing_read(wanted)
    messages.summarise()
    return replace(joined(parts), messages=tuple(messages.lines))
