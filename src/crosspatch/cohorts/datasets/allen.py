"""The Allen Institute's Patch-seq tables of mouse visual cortex and human neocortex.

The quality control of arXiv 2603.11000 (3,699 mouse and 506 human cells) needs the recordings and
cannot be rebuilt from these tables.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

from crosspatch.cohorts import sources
from crosspatch.cohorts.dataset import Dataset, SourceCells, register
from crosspatch.cohorts.sources import Key, SourceReader, cells_in, feature_columns, unique_cells
from crosspatch.features.layouts import Layout

_MOUSE = "allen_mouse_visp"
_HUMAN = "allen_human_gaba"

_ABOUT = tomllib.loads(
    (files("crosspatch.cohorts") / "data" / "allen.toml").read_text(encoding="utf-8")
)
_MOUSE_OBS: dict[str, str] = _ABOUT["obs"]["allen-mouse"]
_HUMAN_OBS: dict[str, str] = _ABOUT["obs"]["allen-human"]


def _read_mouse(reader: SourceReader, layout: Layout) -> SourceCells:
    key = "cell_specimen_id"
    rows, file = reader.read(
        f"{_MOUSE}/20200711_patchseq_metadata_mouse.csv", [key, "donor_id", *_MOUSE_OBS.values()]
    )
    labels_from = f"{file}, column '{_MOUSE_OBS['t_type']}'"
    rows = unique_cells(rows, file, key)
    cells = cells_in(rows, file, _MOUSE_OBS, rows["donor_id"])
    cells["label"] = cells["t_type"].str.split().str[0]
    cell_of = dict(zip(cells["ephys_session_id"], cells.index, strict=True))
    session = r"ses-(\d+)"
    by_cell = f"{_MOUSE}/gouwens_tasic_byCell.csv.gz"
    by_cell_key = Key("cell_id", r"#(\d+)$", encoding="latin-1")
    keys = {
        f"{_MOUSE}/efeature.csv": Key("ID", session, cell_of),
        f"{_MOUSE}/ephys_features_gouwens_w_QC.csv": Key("filename", session, cell_of),
        by_cell: by_cell_key,
    }
    values = reader.features(feature_columns("allen-mouse"), layout, keys)
    layer, confidence = "Cortical layer", "T type assignment probability"
    extra, file = reader.read(by_cell, ["cell_id", layer, confidence], by_cell_key.encoding)
    extra.index = by_cell_key.of(extra, file)
    cells["layer"] = extra[layer].reindex(cells.index)
    cells["t_type_confidence"] = sources.numeric(extra, confidence, file).reindex(cells.index)
    return SourceCells(cells, values, labels_from)


def _read_human(reader: SourceReader, layout: Layout) -> SourceCells:
    key, label = "specimen_id_x", "Revised_subclass_label"
    rows, file = reader.read(
        f"{_HUMAN}/LeeDalley_manuscript_metadata_v2.csv",
        [key, "Donor", label, *_HUMAN_OBS.values()],
    )
    labels_from = f"{file}, column '{label}'"
    rows = unique_cells(rows, file, key)
    # h19.03.002 is the only one in lower case; a second spelling must never split a donor.
    cells = cells_in(rows, file, _HUMAN_OBS, rows["Donor"].str.upper())
    cells["days_in_culture"] = sources.numeric(rows, "Days_In_culture", file).to_numpy()
    cells["label"] = rows[label].to_numpy()
    keys = {f"{_HUMAN}/LeeDalley_ephys_fx.csv": Key("specimen_id")}
    values = reader.features(feature_columns("allen-human"), layout, keys)
    donors, file = reader.read(f"{_HUMAN}/DataS1_Donor_table.csv", ["Donor", "Sex", "Age"])
    donors["Donor"] = donors["Donor"].str.upper()
    donors = unique_cells(donors, file, "Donor")
    cells["sex"] = cells["donor"].map(donors["Sex"])
    cells["age"] = cells["donor"].map(donors["Age"])
    mapped, file = reader.read(f"{_HUMAN}/LeeDalley_byCell.csv", [key, "bootstrap_probability"])
    mapped = unique_cells(mapped, file, key)
    confidence = sources.numeric(mapped, "bootstrap_probability", file)
    cells["t_type_confidence"] = confidence.reindex(cells.index)
    return SourceCells(cells, values, labels_from)


for _name, _folder, _read in (
    ("allen-mouse", _MOUSE, _read_mouse),
    ("allen-human", _HUMAN, _read_human),
):
    _described: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in _ABOUT["datasets"][_name].items()
    }
    register(Dataset(name=_name, files=sources.listed(_folder), read=_read, **_described))
