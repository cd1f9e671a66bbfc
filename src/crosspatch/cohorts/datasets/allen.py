"""The Allen Institute's Patch-seq tables of mouse visual cortex and human neocortex.

The quality control of arXiv 2603.11000 (3,699 mouse and 506 human cells) needs the recordings and
cannot be rebuilt from these tables.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

import pandas as pd

from crosspatch.cohorts import harmonised, sea_ad, sources
from crosspatch.cohorts.dataset import Dataset, SourceCells, register
from crosspatch.cohorts.sources import Key, SourceReader, cells_in, feature_columns, unique_cells
from crosspatch.features.layouts import Layout

_MOUSE = "allen_mouse_visp"
_HUMAN = "allen_human_gaba"
_METADATA = f"{_HUMAN}/LeeDalley_manuscript_metadata_v2.csv"

_ABOUT = tomllib.loads(
    (files("crosspatch.cohorts") / "data" / "allen.toml").read_text(encoding="utf-8")
)
#: Label of Lee, Dalley et al. to subclass, and the licence of the Allen Institute's tables.
HUMAN_LABELS: dict[str, str] = _ABOUT["datasets"]["allen-human"]["labels"]
LICENCE: str = _ABOUT["datasets"]["allen-human"]["licence"]
#: The rigs and code of the Allen Institute's Patch-seq.
PATCH_SEQ = "allen-patch-seq"
MOUSE_FILES = sources.listed(_MOUSE)
HUMAN_FILES = sources.listed(_HUMAN)
_MOUSE_OBS: dict[str, str] = _ABOUT["obs"]["allen-mouse"]
_HUMAN_OBS: dict[str, str] = _ABOUT["obs"]["allen-human"]


_BY_CELL = f"{_MOUSE}/gouwens_tasic_byCell.csv.gz"
_BY_CELL_KEY = Key("cell_id", r"#(\d+)$", encoding="latin-1")


def mouse_features(reader: SourceReader, layout: Layout, sessions: pd.Series) -> pd.DataFrame:
    """Features of the mouse Patch-seq recordings; `sessions` has their numbers, by cell."""
    cell_of = dict(zip(sessions, sessions.index, strict=True))
    session = r"ses-(\d+)"
    keys = {
        f"{_MOUSE}/efeature.csv": Key("ID", session, cell_of),
        f"{_MOUSE}/ephys_features_gouwens_w_QC.csv": Key("filename", session, cell_of),
        _BY_CELL: _BY_CELL_KEY,
    }
    return reader.features(feature_columns("allen-mouse"), layout, keys)


def _read_mouse(reader: SourceReader, layout: Layout) -> SourceCells:
    key = "cell_specimen_id"
    rows, file = reader.read(
        f"{_MOUSE}/20200711_patchseq_metadata_mouse.csv", [key, "donor_id", *_MOUSE_OBS.values()]
    )
    labels_from = f"{file}, column '{_MOUSE_OBS['t_type']}'"
    rows = unique_cells(rows, file, key)
    cells = cells_in(rows, file, _MOUSE_OBS, rows["donor_id"])
    cells["label"] = cells["t_type"].str.split().str[0]
    values = mouse_features(reader, layout, cells["ephys_session_id"])
    layer, confidence = "Cortical layer", "T type assignment probability"
    extra, file = reader.read(_BY_CELL, ["cell_id", layer, confidence], _BY_CELL_KEY.encoding)
    extra.index = _BY_CELL_KEY.of(extra, file)
    cells["layer"] = harmonised.layers(extra[layer]).reindex(cells.index)
    cells["t_type_confidence"] = sources.numeric(extra, confidence, file).reindex(cells.index)
    return SourceCells(cells, values, labels_from)


def _read_human(reader: SourceReader, layout: Layout) -> SourceCells:
    key, label = "specimen_id_x", "Revised_subclass_label"
    rows, file = reader.read(_METADATA, [key, "Donor", label, *_HUMAN_OBS.values()])
    labels_from = f"{file}, column '{label}'"
    rows = unique_cells(rows, file, key)
    cells = cells_in(rows, file, _HUMAN_OBS, harmonised.human_donors(rows["Donor"]))
    cells["layer"] = harmonised.layers(cells["layer"])
    cells["disease"] = harmonised.diseases(cells["disease"])
    cells["days_in_culture"] = sources.numeric(rows, "Days_In_culture", file).to_numpy()
    cells["label"] = rows[label].to_numpy()
    keys = {f"{_HUMAN}/LeeDalley_ephys_fx.csv": Key("specimen_id")}
    values = reader.features(feature_columns("allen-human"), layout, keys)
    donors, file = reader.read(f"{_HUMAN}/DataS1_Donor_table.csv", ["Donor", "Sex", "Age"])
    donors["Donor"] = harmonised.human_donors(donors["Donor"])
    donors = unique_cells(donors, file, "Donor")
    cells["sex"] = cells["donor"].map(donors["Sex"])
    cells["age"] = cells["donor"].map(donors["Age"])
    mapped, file = reader.read(
        f"{_HUMAN}/LeeDalley_byCell.csv", [key, "bootstrap_probability", "postPatch"]
    )
    mapped = unique_cells(mapped, file, key)
    confidence = sources.numeric(mapped, "bootstrap_probability", file)
    cells["t_type_confidence"] = confidence.reindex(cells.index)
    cells["post_patch"] = harmonised.post_patch(mapped["postPatch"]).reindex(cells.index)
    cells["class"] = "GABAergic"
    sea_ad.add_labels(cells, reader)
    return SourceCells(cells, values, labels_from)


def human_types(reader: SourceReader) -> dict[str, str]:
    """Human t-type, without its layers, to the label that Lee, Dalley et al. give all its cells."""
    label, t_type = "Revised_subclass_label", _HUMAN_OBS["t_type"]
    rows, _ = reader.read(_METADATA, [label, t_type])
    types = rows[t_type].str.strip().str.replace(r"^Inh L\d(-\d)? ", "", regex=True)
    known = rows[label].groupby(types).agg(["nunique", "first"])
    one = known.loc[known["nunique"] == 1, "first"]
    return dict(zip(map(str, one.index), map(str, one), strict=True))


for _name, _files, _read in (
    ("allen-mouse", MOUSE_FILES, _read_mouse),
    ("allen-human", HUMAN_FILES + sea_ad.FILES, _read_human),
):
    _described: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in _ABOUT["datasets"][_name].items()
    }
    _others = {sea_ad.SEA_AD: sea_ad.LABELLING} if _name == "allen-human" else {}
    register(
        Dataset(name=_name, files=_files, read=_read, others=_others, rig=PATCH_SEQ, **_described)
    )
