"""The Allen Institute's Patch-seq tables of mouse visual cortex and human neocortex.

The quality control of arXiv 2603.11000 (3,699 mouse and 506 human cells) needs the recordings and
cannot be rebuilt from these tables.
"""

from __future__ import annotations

from crosspatch.cohorts import sources
from crosspatch.cohorts.dataset import Dataset, SourceCells, register
from crosspatch.cohorts.joining import Key, SourceReader, cells_in, feature_columns, unique_cells
from crosspatch.features.layouts import Layout

_MOUSE = "allen_mouse_visp"
_HUMAN = "allen_human_gaba"

# Our name in obs to the column of the source.
_MOUSE_OBS = {
    "t_type": "T-type Label",
    "met_type": "MET-type Label",
    "structure": "structure",
    "sex": "biological_sex",
    "age": "age",
    "genotype": "full_genotype",
    "ephys_session_id": "ephys_session_id",
}
_HUMAN_OBS = {
    "t_type": "Transcriptomic_type ",  # the source's name ends in a blank
    "cross_species_type": "M_H_Hodge_cross_species_types",
    "layer": "Cortical_layer",
    "structure": "structure",
    "lobe": "lobe",
    "condition": "condition",
    "condition_detail": "condition2",
    "disease": "disease_category",
    "days_in_culture": "Days_In_culture",
    "original_subclass": "subclass_label",
    "nwb_id": "nwb_id",
}
_LICENCE = (
    "Allen Institute: free for research; redistribution for commercial purposes needs their "
    "permission"
)


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


register(
    Dataset(
        name="allen-mouse",
        species="mouse",
        layouts=("shared",),
        files=sources.listed(_MOUSE),
        # The first word of the t-type of Tasic et al. 2018, as mapped by Gouwens et al. 2020.
        labels={name: name for name in ("Lamp5", "Pvalb", "Sst", "Vip", "Sncg")},
        # Too rare, or not interneurons.
        outside={"Serpinf1": "too few cells", "Meis2": "one cell", "L2/3": "excitatory"},
        read=_read_mouse,
        licence=_LICENCE,
        cite=("gouwens2020",),
        authors="Gouwens et al. 2020",
        citation="Gouwens et al.: Integrated morphoelectric and transcriptomic classification of "
        "cortical GABAergic cells. Cell 183 (2020): the mouse cells, and the features.",
        collection="allen",
        dandisets=("000020",),
        session="ephys_session_id",
    )
)
register(
    Dataset(
        name="allen-human",
        species="human",
        layouts=("shared", "full"),
        files=sources.listed(_HUMAN),
        # The revised subclass of Lee, Dalley et al. 2023.
        labels={"LAMP5/PAX6/Other": "Lamp5", "PVALB": "Pvalb", "SST": "Sst", "VIP": "Vip"},
        outside={},
        read=_read_human,
        licence=_LICENCE,
        cite=("lee2023",),
        authors="Lee and Dalley et al. 2023",
        citation="Lee, Dalley et al.: Signature morphoelectric properties of diverse GABAergic "
        "interneurons in the human neocortex. Science 382 (2023): the human cells.",
        collection="allen",
        dandisets=("000636",),
        session="nwb_id",
    )
)
