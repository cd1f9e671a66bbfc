"""What a model says of cells: a table, an AnnData, a picture, a copy of a recording.

Longer than 400 lines: what it says of a cell and all that it becomes, with its documentation.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.drawing.notebook import MOST_ROWS, as_html
from crosspatch.errors import CrosspatchError
from crosspatch.features.finding import Source
from crosspatch.features.layouts import Layout
from crosspatch.models.alignment import Alignment
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.levels import CHANCE, T_TYPES, runner_up_of, with_terms

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from matplotlib.figure import Figure

#: What is said of a cell that was moved before it was judged.
MOVED = "moved onto the reference with its batch"

#: Columns that `Prediction.to_table` tells of in ``notes``.
IN_NOTES = ("given_id", "simulated", "unread", "unusual", "aligned", "references")

#: Columns that hold several words.
LISTS = ("prediction_set", "families", "notes", "unusual", "references")


def records_schema(classes: Sequence[str]) -> pa.Schema:
    """Columns of `Prediction.records` for models of these classes."""
    names = [
        *("cell_id", "given_id", "species", "species_known", "subclass", "probability"),
        *(f"{CHANCE}{name}" for name in classes),
        *("prediction_set", "verdict", "p_reference", "p_interneuron"),
        *("completeness", "families", "layer"),
        *T_TYPES,
        *("quality", "notes", "simulated", "unread", "unusual", "aligned", "references", "source"),
    ]
    kinds = dict.fromkeys(names, pa.string()) | dict.fromkeys(LISTS, pa.list_(pa.string()))
    kinds |= dict.fromkeys(("species_known", "simulated", "aligned"), pa.bool_())
    numbers = ["probability", "p_reference", "p_interneuron", "completeness"]
    numbers += [f"{CHANCE}{name}" for name in classes]
    numbers += [name for name in T_TYPES if name.endswith("probability")]
    return pa.schema(kinds | dict.fromkeys(numbers, pa.float64()))


def as_records(cells: pd.DataFrame) -> pa.Table:
    """`Prediction.records` of what `Prediction.cells` gives."""
    chances = [name for name in map(str, cells) if name.startswith(CHANCE)]
    schema = records_schema([name.removeprefix(CHANCE) for name in chances])
    columns = [
        # A number that is missing stays NaN.
        pa.array(cells[field.name].to_numpy(), field.type, from_pandas=field.type != pa.float64())
        for field in schema
    ]
    return pa.table(columns, schema=schema)


class PredictedCell(NamedTuple):
    """What a model says of one cell: a row of `Prediction.cells`."""

    cell_id: str
    given_id: str  # its id as the file has it, where several cells may have it
    species: str  # of the reference it was judged by
    species_known: bool  # whether its file, or the user, said its species
    subclass: str  # empty where no subclass is given
    probability: float  # of the subclass; NaN where none is given
    probabilities: Mapping[str, float]  # of every class
    prediction_set: tuple[str, ...]
    verdict: Verdict
    p_reference: float
    p_interneuron: float  # see `crosspatch.models.verdicts.Screened`; NaN where it is not tested
    completeness: float  # share of the layout that was measured
    families: tuple[str, ...]  # families that were measured
    layer: str  # the cortical layer it was judged with; empty where none was known or is taken
    t_type: str  # of a confident cell, where probable enough to be named; else empty
    t_type_guess: str  # the most probable t-type of a confident cell, named or not; else empty
    t_type_probability: float  # of the guess, calibrated
    t_type_runner_up: str  # the next of the subclass
    t_type_runner_up_probability: float
    quality: str  # what quality control found wrong; empty if nothing
    notes: tuple[str, ...]  # what else is to be said
    simulated: bool  # whether its file says that it was simulated
    unread: str | None  # why its recording gave no feature; None where it did
    #: In what it is unlike the reference; None where it is not called outside.
    unusual: tuple[str, ...] | None
    aligned: bool  # whether it was moved onto the reference, with its batch, before
    #: Species that there are models of, where there is none of the cell's; else empty.
    references: tuple[str, ...]
    source: str  # the file it is from, or ``recordings``

    @property
    def cell_ontology_id(self) -> str:
        """The Cell Ontology's term for its subclass; empty where none is given."""
        return load_taxonomy().term(self.subclass) or ""

    @property
    def runner_up(self) -> tuple[str, float]:
        """The second most probable subclass and its probability; empty and NaN without a first."""
        return runner_up_of(self.subclass, self.probabilities)

    @property
    def unlike(self) -> str:
        """In what it is unlike the reference, in words; empty where it is not."""
        if self.unusual is None:
            return ""
        what = ", ".join(self.unusual) or "an unusual combination"
        return f"unlike {self.species}: {what}"

    @property
    def remarks(self) -> list[str]:
        """What is to be said of it in words, without `simulated` and `unlike`."""
        said = [] if self.unread is None else [f"not read: {self.unread}"]
        if self.aligned:
            said.append(MOVED)
        said += self.notes
        if self.given_id != self.cell_id:
            said.append(f"cell id '{self.given_id}' stands more than once")
        if self.references:
            said.append(f"the reference is of {' and '.join(self.references)} cells")
        return said

    @property
    def text(self) -> str:
        """Everything that is to be said of it, in one line."""
        parts = ["SIMULATED" if self.simulated else "", *self.remarks, self.unlike]
        return "; ".join(part for part in parts if part)

    @property
    def line(self) -> str:
        """What is said of it in one line; a subclass that is no answer stands in brackets."""
        answer = f"{self.subclass} {self.probability:.2f}" if self.subclass else ""
        if answer and self.verdict == Verdict.OUTSIDE:
            answer = f"({answer})"
        chosen = " ".join(self.prediction_set)
        parts = [
            str(self.verdict),
            "" if self.species_known else f"{self.species} (assumed)",
            answer,
            f"90 % set {chosen}" if chosen else "",
        ]
        said = [", ".join(part for part in parts if part)]
        said += [f"fails quality control: {self.quality}"] if self.quality else []
        said += [self.text] if self.text else []
        return f"{self.cell_id}: {'; '.join(said)}"


@dataclass(frozen=True)
class Prediction:
    """What a model says of cells.

    Attributes
    ----------
    records : Table of Arrow
        One row per cell and species it was judged by, with the columns of `records_schema`; see
        `PredictedCell` for what they mean.
    X : array, shape (rows, features)
        What was measured, in the layout's units, NaN where missing.
    layout : Layout
        In which cells were read: that of the model with the most features.
    header : mapping
        Tool, models, taxonomy, parameters.
    recordings : mapping
        Cell id to the recording it is from; without rows of tables.
    electrodes : mapping
        Cell id to the electrode it was recorded with, where a recording has several.
    alignments : mapping
        Source and species to how cells were moved before they were judged, where they were.
    messages : tuple of str
        What was taken for what, and what went wrong, where `crosspatch.predict` made it.

    Examples
    --------
    >>> import crosspatch
    >>> found = crosspatch.predict("human.h5ad", model="human-model")
    >>> found.first(3).to_table()["verdict"].tolist()
    ['confident', 'confident', 'confident']
    >>> next(iter(found)).prediction_set
    ('Vip',)
    >>> found.to_adata().shape
    (360, 32)
    """

    records: pa.Table
    X: NDArray[np.float32]
    layout: Layout
    header: Mapping[str, Any] = field(default_factory=dict)
    recordings: Mapping[str, Source] = field(default_factory=dict)
    electrodes: Mapping[str, str] = field(default_factory=dict)
    alignments: Mapping[tuple[str, str], Alignment] = field(default_factory=dict)
    messages: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """`records` for pandas: lists as tuples, and verdicts as `Verdict`."""
        frame = self.records.to_pandas()
        for name in LISTS:
            said = self.records[name].to_pylist()
            frame[name] = [None if each is None else tuple(each) for each in said]
        frame["verdict"] = [Verdict(each) for each in frame["verdict"]]
        return frame

    def __iter__(self) -> Iterator[PredictedCell]:
        """One `PredictedCell` per row."""
        chances = [name for name in self.records.column_names if name.startswith(CHANCE)]
        for batch in self.records.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                row |= {k: None if row[k] is None else tuple(row[k]) for k in LISTS}
                row["verdict"] = Verdict(row["verdict"])
                row["probabilities"] = {n.removeprefix(CHANCE): row.pop(n) for n in chances}
                yield PredictedCell(**row)

    @property
    def verdicts(self) -> Counter[Verdict]:
        """How many rows have each verdict."""
        counts = pc.value_counts(self.records["verdict"]).to_pylist()
        return Counter({Verdict(each["values"]): each["counts"] for each in counts})

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {verdict}" for verdict, count in self.verdicts.most_common())
        models = ", ".join(
            f"{model['model']} of {model['species']} cells"
            for model in self.header.get("models", ())
        )
        rows = f"{len(self):,} row{'' if len(self) == 1 else 's'}"
        return f"Prediction of {rows} ({counts or 'no verdict'}) by {models or 'no model'}"

    def _repr_html_(self) -> str:
        """The first rows as a table, for notebooks."""
        columns = ["cell_id", "species", "subclass", "probability", "prediction_set", "verdict"]
        first = self.first(MOST_ROWS).to_table()[[*columns, "completeness", "notes"]]
        first["probability"] = first["probability"].map("{:.2f}".format, na_action="ignore")
        first["completeness"] = first["completeness"].map("{:.0%}".format, na_action="ignore")
        return as_html(repr(self), first, len(self))

    def first(self, rows: int) -> Prediction:
        """The first rows."""
        return self.rows(np.arange(min(rows, len(self))))

    def first_cells(self, cells: int) -> Prediction:
        """The rows of the first cells; a cell may have one for each species."""
        numbers = self.records["cell_id"].combine_chunks().dictionary_encode().indices
        return self.rows(np.flatnonzero(numbers.to_numpy() < cells))

    def rows(self, rows: NDArray[np.intp]) -> Prediction:
        """Some rows, by number."""
        return replace(self, records=self.records.take(rows), X=self.X[rows])

    def to_table(self) -> pd.DataFrame:
        """One row per cell; a cell of unknown species has a row for each species.

        Returns
        -------
        DataFrame
            In words: ``cell_id``; ``species`` it was judged by, and ``species_known``;
            ``subclass``, its ``cell_ontology_id`` and ``probability``; ``runner_up``, the second
            most probable subclass, its ``runner_up_cell_ontology_id`` and
            ``runner_up_probability``; and ``probability_`` of every class;
            ``prediction_set``, classes joined by ``|``, with Glutamatergic where the cell may be
            excitatory; ``verdict``; ``p_reference``; ``p_interneuron``, the share of interneurons
            of other laboratories that look as excitatory; ``completeness`` of the layout from 0 to
            1; ``families`` present, joined by ``|``; the cortical ``layer`` that was used; where
            a model knows t-types, the ``t_type`` of a confident cell, where it is probable enough
            to be named, ``t_type_guess``, the most probable one, named or not, its
            ``t_type_probability``, and ``t_type_runner_up`` with its probability;
            ``quality``; ``notes``; ``source``.
        """
        return self.written().to_pandas()

    def written(self) -> pa.Table:
        """What `to_table` gives, for Arrow."""
        found = self.records.drop_columns(list(IN_NOTES))
        if not any(model.get("t_types") for model in self.header.get("models", ())):
            found = found.drop_columns(list(T_TYPES))
        for name in ("prediction_set", "families", "notes"):
            text = self._notes() if name == "notes" else pc.binary_join(found[name], "|")
            found = found.set_column(found.column_names.index(name), name, text)
        return with_terms(found)

    def _notes(self) -> pa.ChunkedArray:
        """`PredictedCell.text` of every row."""
        of = self.records.column
        what = _together(of("unusual"), ", ", "an unusual combination")
        twice = pc.if_else(pc.not_equal(of("given_id"), of("cell_id")), of("given_id"), None)
        there = _together(of("references"), " and ", None)
        said = pc.binary_join_element_wise(
            "",  # where there is nothing else, Arrow would leave the row out
            pc.if_else(of("simulated"), "SIMULATED", None),
            pc.binary_join_element_wise("not read: ", of("unread"), ""),
            pc.if_else(of("aligned"), MOVED, None),
            _together(of("notes"), "; ", None),
            pc.binary_join_element_wise("cell id '", twice, "' stands more than once", ""),
            pc.binary_join_element_wise("the reference is of ", there, " cells", ""),
            pc.binary_join_element_wise("unlike ", of("species"), ": ", what, ""),
            "; ",
            null_handling="skip",
        )
        return pc.utf8_slice_codeunits(said, len("; "))

    def to_adata(self) -> anndata.AnnData:
        """Features in ``X``, what `to_table` gives in ``obs``, the header in ``uns``."""
        import anndata
        import pandas as pd

        cells = self.to_table()
        names = cells["cell_id"].astype(str)
        both = names.duplicated(keep=False)
        names = names.where(~both, names + " (" + cells["species"].astype(str) + ")")
        text = cells.select_dtypes("object").columns
        cells = cells.astype(dict.fromkeys(text, str)).set_index(pd.Index(names, name="cell"))
        var = pd.DataFrame(
            {
                "family": [feature.family for feature in self.layout.features],
                "unit": [feature.unit for feature in self.layout.features],
            },
            index=pd.Index(self.layout.feature_names, name="feature"),
        )
        adata = anndata.AnnData(X=self.X.copy(), obs=cells, var=var)
        adata.uns["prediction"] = json.dumps(self.header)
        return adata

    def to_nwb(
        self, out: str | Path | None = None, *, in_place: bool = False, replace: bool = False
    ) -> list[Path]:
        """Write what is said of recordings into copies of their NWB files.

        A copy has the tables ``crosspatch_predictions`` and ``crosspatch_features`` in its
        processing module ``icephys``; everything else stays as it was.

        Parameters
        ----------
        out : path, optional
            The copy, or a folder for copies of several files.
        in_place : bool
            Whether the files themselves are written into instead; each is replaced when its new
            version is whole.
        replace : bool
            Whether an earlier annotation, or a file that is called as the copy, is replaced.

        Returns
        -------
        list of path
            What was written.

        Raises
        ------
        RecordingError
            If a recording is not NWB, has no cell that could be measured, was annotated already, or
            a copy cannot be written; those before it are written.
        """
        from crosspatch.prediction.annotating import annotated, copies_of

        shown = set(self.records["cell_id"].to_pylist())
        files = dict.fromkeys(file for name, file in self.recordings.items() if name in shown)
        copies = copies_of(list(files), out, in_place=in_place)
        for _, found in annotated(self, copies, replace=replace):
            if isinstance(found, CrosspatchError):
                raise found
        return list(copies.values())

    def plot(self, most: int = MOST_ROWS) -> Figure:
        """Probabilities of the first cells as bars, with set and verdict.

        Parameters
        ----------
        most : int
            Rows drawn.
        """
        from crosspatch.prediction.prediction_figure import prediction_figure

        return prediction_figure(self.first(most), len(self))


def _together(lists: pa.ChunkedArray, mark: str, nothing: str | None) -> pa.ChunkedArray:
    """The words of every list, joined; what is said of an empty list; null where there is none."""
    return pc.if_else(
        pc.equal(pc.list_value_length(lists), 0), nothing, pc.binary_join(lists, mark)
    )


def joined(parts: Sequence[Prediction]) -> Prediction:
    """One prediction of several of the same models."""
    records = pa.concat_tables([part.records for part in parts])
    recordings = {name: file for part in parts for name, file in part.recordings.items()}
    electrodes = {name: each for part in parts for name, each in part.electrodes.items()}
    X = np.vstack([part.X for part in parts])
    alignments = {of: how for part in parts for of, how in part.alignments.items()}
    return replace(
        parts[0],
        records=records,
        X=X,
        recordings=recordings,
        electrodes=electrodes,
        alignments=alignments,
    )
