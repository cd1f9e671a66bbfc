"""The Allen Cell Types Database: cells without a transcriptome, labelled by Cre line or dendrite.

Mouse cells whose reporter shines and that are not spiny are of the subclass of their line, where it
marks one; every spiny cell is excitatory. Human cells have no line: spiny or not is all there is.

Features are of the database's own pipeline, under the names of the newer ``efeature.csv`` of the
Patch-seq cells. Its hero features are taken where the two files of the Patch-seq cells agree on the
same cells (Spearman's correlation: ``adaptation`` 0.97, ``avg_isi`` 0.96, but ``latency`` 0.88).
Steps begin at 1.02 s. No animal is one of the Patch-seq cells'; some human donors are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from crosspatch.cohorts import harmonised
from crosspatch.cohorts.dataset import Dataset, SourceCells, register
from crosspatch.cohorts.datasets.allen import LICENCE
from crosspatch.cohorts.sources import (
    FeatureColumn,
    Key,
    SourceReader,
    cells_in,
    feature_columns,
    listed,
    unique_cells,
)
from crosspatch.features.layouts import Layout
from crosspatch.species import SpeciesName

_FOLDER = "allen_cell_types"
_FEATURES = f"{_FOLDER}/ephys_features.csv"
_SPECIES = {"mouse": "Mus musculus", "human": "Homo Sapiens"}
_LINES = {
    "Pvalb-IRES-Cre": "Pvalb",
    "Sst-IRES-Cre": "Sst",
    "Vip-IRES-Cre": "Vip",
    "Ndnf-IRES2-dgCre": "Lamp5",
}
_LABELS: dict[SpeciesName, dict[str, str]] = {
    "mouse": {**_LINES, "spiny": "Glutamatergic"},
    "human": {"spiny": "Glutamatergic", "aspiny": "GABAergic", "sparsely spiny": "GABAergic"},
}
_OBS = {
    "structure": "structure__acronym",
    "layer": "structure__layer",
    "line": "line_name",
    "reporter": "cell_reporter_status",
    "dendrite": "tag__dendrite_type",
    "disease": "donor__disease_state",
    "sex": "donor__sex",
    "age": "donor__age",
}


def _columns() -> list[FeatureColumn]:
    found = [
        replace(column, file=_FEATURES)
        for column in feature_columns("allen-mouse")
        if column.file.endswith("/efeature.csv")
    ]
    start = FeatureColumn("latency_rheo", _FEATURES, "threshold_t_long_square", "subtract", "1.02")
    return [
        *(column for column in found if column.feature != start.feature),
        start,
        FeatureColumn("adapt_hero", _FEATURES, "adaptation"),
        FeatureColumn("mean_isi_hero", _FEATURES, "avg_isi", "multiply", "0.001"),
    ]


def _read(reader: SourceReader, layout: Layout, species: str) -> SourceCells:
    key, named, of = "specimen__id", "donor__name", "donor__species"
    rows, file = reader.read(
        f"{_FOLDER}/cell_types_specimen_details.csv", [key, named, of, *_OBS.values()]
    )
    rows = unique_cells(rows[rows[of] == _SPECIES[species]], file, key)
    donors = harmonised.human_donors(rows[named])
    if species == "mouse":  # the animal's number, as the Patch-seq cells have it, ends its name
        donors = rows[named].str.extract(r"-(\d+)$", expand=False).fillna(rows[named])
    cells = cells_in(rows, file, _OBS, donors)
    cells["layer"] = harmonised.layers(cells["layer"])
    cells["disease"] = harmonised.diseases(cells["disease"])
    cells["t_type"] = None
    spiny = cells["dendrite"] == "spiny"
    label = cells["dendrite"]
    if species == "mouse":
        of_line = cells["line"].isin(_LINES) & (cells["reporter"] == "positive") & ~spiny
        label = cells["line"].where(of_line).mask(spiny, "spiny")
    cells["label"] = label
    values = reader.features(_columns(), layout, {_FEATURES: Key("specimen_id")})
    where = "line_name" if species == "mouse" else _OBS["dendrite"]
    return SourceCells(cells, values, f"{file}, column '{where}'")


_name: SpeciesName
for _name, _labels in _LABELS.items():
    register(
        Dataset(
            name=f"allen-cell-types-{_name}",
            species=_name,
            layouts=("shared",),
            files=listed(_FOLDER),
            labels=_labels,
            outside={},
            read=partial(_read, species=_name),
            licence=LICENCE,
            cite=("allencelltypes", "gouwens2019"),
            authors="Allen Cell Types Database",
            citation="Allen Cell Types Database (2015), celltypes.brain-map.org; Gouwens et al.: "
            "Classification of electrophysiological and morphological neuron types in the mouse "
            f"visual cortex. Nature Neuroscience 22 (2019): {_name} cells by line and dendrite.",
        )
    )
