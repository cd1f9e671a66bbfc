"""The Allen Institute's Patch-seq of human layer 1 (Chartrand et al. 2023).

Measured by the pipeline of the table of Lee, Dalley et al., in which 38 of its cells stand too: on
these all features agree but ``sag_area`` and ``sag_area_depol``, which the two tables set to zero
below different sags, and which are therefore missing here. A trough in millivolts is there, from
which its depth is taken as in the other table (equal on those 38). Troughs after short steps, the
regularity of intervals by squares and what the strongest step gave are not there at all.

Cells are labelled by their t-type: as the table of Lee, Dalley et al. labels all cells of it. Types
that it does not have (LAMP5 NMBR, SST CHRNA4) stay without a label.
"""

from __future__ import annotations

from dataclasses import replace

from crosspatch.cohorts import harmonised, sea_ad
from crosspatch.cohorts.dataset import Dataset, SourceCells, register
from crosspatch.cohorts.datasets.allen import (
    HUMAN_FILES,
    HUMAN_LABELS,
    LICENCE,
    PATCH_SEQ,
    human_types,
)
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

_FOLDER = "allen_human_l1"
_FEATURES = f"{_FOLDER}/aibs_features_E.csv"
_OBS = {
    "t_type": "t-type",
    "structure": "structure",
    "lobe": "roi",
    "disease": "medical_conditions",
    "sex": "donor_sex",
    "age": "donor_age",
    "post_patch": "postPatch",
}
_ABSENT = {
    *("sag_area", "sag_area_depol"),
    *("fast_trough_deltav_short_square", "postap_slope_short_square", "fast_trough_v_adapt_ratio"),
    *("isi_norm_sq_var_hero", "isi_norm_sq_var_mean", "isi_norm_sq_var_max"),
    *("adapt_max", "isi_cv_max"),
}


def _columns() -> list[FeatureColumn]:
    found = []
    for column in feature_columns("allen-human"):
        start, _, stimulus = column.feature.rpartition("_")
        if start == "trough_deltav":
            subtract = (f"trough_v_{stimulus}", "subtract", f"threshold_v_{stimulus}")
            found.append(FeatureColumn(column.feature, _FEATURES, *subtract))
        elif column.feature not in _ABSENT:
            found.append(replace(column, file=_FEATURES))
    return found


def _read(reader: SourceReader, layout: Layout) -> SourceCells:
    key = "spec_id"
    named = [key, "donor_name", "layer_lims", "target_layer", *_OBS.values()]
    rows, file = reader.read(f"{_FOLDER}/human_l1_dataset_2023_02_06.csv", named)
    rows = unique_cells(rows, file, key)
    # ``donor`` has gaps, ``donor_name`` has none.
    cells = cells_in(rows, file, _OBS, harmonised.human_donors(rows["donor_name"]))
    layer = rows["layer_lims"].where(rows["layer_lims"].notna(), rows["target_layer"])
    cells["layer"] = harmonised.layers(layer)
    cells["lobe"] = harmonised.lobes(cells["lobe"])
    cells["disease"] = harmonised.diseases(cells["disease"])
    cells["post_patch"] = harmonised.post_patch(cells["post_patch"])
    cells["class"] = "GABAergic"
    cells["label"] = cells["t_type"].map(human_types(reader))
    sea_ad.add_labels(cells, reader)
    values = reader.features(_columns(), layout, {_FEATURES: Key("cell_name")})
    return SourceCells(cells, values, f"{file}, column '{_OBS['t_type']}'")


register(
    Dataset(
        name="allen-human-l1",
        species="human",
        layouts=("shared", "full"),
        files=(*listed(_FOLDER), *HUMAN_FILES, *sea_ad.FILES),
        labels=HUMAN_LABELS,
        outside={},
        read=_read,
        licence=LICENCE,
        cite=("chartrand2023", "lee2023", "humanintpatchseq", "gabitto2024"),
        authors="Chartrand et al. 2023",
        citation="Chartrand et al.: Morphoelectric and transcriptomic divergence of the layer 1 "
        "interneuron repertoire in human versus mouse neocortex. Science 382 (2023): human cells "
        "of layer 1.",
        taxonomy="lee2023",
        rig=PATCH_SEQ,
        others={sea_ad.SEA_AD: sea_ad.LABELLING},
    )
)
