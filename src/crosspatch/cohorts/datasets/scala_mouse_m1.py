"""Mouse motor cortex, measured by another laboratory at room temperature (Scala et al. 2021).

Its features are of its own code, on steps of 0.6 s that go up by 20 pA. A feature is taken where it
is the same quantity and tells the subclasses apart as in the Allen mouse cells: the probabilities
that a cell of one subclass exceeds one of another, over the ten pairs, correlate by 0.8 or more,
and no pair that differs clearly (by 0.15 from a half) is the other way round. docs/choices.md has
the numbers. Values are as published: most are shifted in all subclasses alike, as cold does to
widths, heights and resistances, so that another laboratory is what they stand for.

Not taken: ``sag`` (1 - 1 / ratio of peak to steady state; two of five pairs turn round),
``threshold_v_rheo`` (one of six does), adaptation, regularity and rate of the interval trains,
which are of the strongest step.

Cells that the authors exclude (firing of one class and RNA of another, or outside the area) have no
label, like those of which the RNA is of low quality.
"""

from __future__ import annotations

from crosspatch.cohorts import harmonised
from crosspatch.cohorts.dataset import Dataset, SourceCells, register
from crosspatch.cohorts.sources import (
    FeatureColumn,
    Key,
    SourceReader,
    cells_in,
    listed,
    numeric,
    unique_cells,
)
from crosspatch.features.layouts import Layout

_FOLDER = "scala_mouse_m1"
_FEATURES = f"{_FOLDER}/m1_patchseq_ephys_features.csv"
_COLUMNS = (
    FeatureColumn("v_baseline", _FEATURES, "Resting membrane potential (mV)"),
    FeatureColumn("input_resistance", _FEATURES, "Input resistance (MOhm)"),
    FeatureColumn("tau", _FEATURES, "Membrane time constant (ms)"),
    FeatureColumn("rheobase_i", _FEATURES, "Rheobase (pA)"),
    FeatureColumn("latency_rheo", _FEATURES, "Latency (ms)", "multiply", "0.001"),
    FeatureColumn("upstroke_downstroke_ratio_rheo", _FEATURES, "Upstroke-to-downstroke ratio"),
    FeatureColumn("peak_deltav_rheo", _FEATURES, "AP amplitude (mV)"),
    FeatureColumn("fast_trough_deltav_rheo", _FEATURES, "Afterhyperpolarization (mV)"),
    FeatureColumn("width_rheo", _FEATURES, "AP width (ms)"),
)
_OBS = {
    "label": "RNA family",
    "t_type": "RNA type",
    "layer": "Inferred layer",
    "line": "Cre",
    "genotype": "Mouse genotype",
    "sex": "Mouse gender",
    "age": "Mouse age",
    "excluded": "Exclusion reasons",
}


def _read(reader: SourceReader, layout: Layout) -> SourceCells:
    key, donor, confidence = "Cell", "Mouse", "RNA type confidence"
    rows, file = reader.read(
        f"{_FOLDER}/m1_patchseq_meta_data.csv",
        [key, donor, confidence, *_OBS.values()],
        separator="\t",
    )
    rows = unique_cells(rows, file, key)
    cells = cells_in(rows, file, _OBS, rows[donor])
    cells["label"] = cells["label"].where(cells["excluded"].isna())
    cells["layer"] = harmonised.layers(cells["layer"])
    cells["cell_name"] = cells.index  # as in the names of its recordings
    cells["structure"] = "MOp"
    cells["temperature"] = "room"
    cells["t_type_confidence"] = numeric(rows, confidence, file).to_numpy()
    values = reader.features(_COLUMNS, layout, {_FEATURES: Key("cell id", r"^(\S+)$")})
    # A cell that fires without current has no rheobase.
    values["rheobase_i"] = values["rheobase_i"].where(values["rheobase_i"] > 0)
    return SourceCells(cells, values, f"{file}, column '{_OBS['label']}'")


register(
    Dataset(
        name="scala-mouse-m1",
        species="mouse",
        layouts=("shared",),
        files=listed(_FOLDER),
        labels={
            **{name: name for name in ("Lamp5", "Pvalb", "Sst", "Vip", "Sncg")},
            **dict.fromkeys(("IT", "CT", "ET", "NP"), "Glutamatergic"),
        },
        outside={"low quality": "RNA of low quality"},
        read=_read,
        licence="Scala et al.: CC-BY-4.0 for the recordings (DANDI 000008), none stated for tables",
        cite=("scala2021", "dandi000008"),
        authors="Scala et al. 2021",
        citation="Scala, Kobak et al.: Phenotypic variation of transcriptomic cell types in mouse "
        "motor cortex. Nature 598 (2021): mouse cells of another laboratory.",
        dandisets=("000008",),
        session="cell_name",
        taxonomy="yao2021",
    )
)
