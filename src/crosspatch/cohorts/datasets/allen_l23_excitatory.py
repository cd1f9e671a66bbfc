"""The Allen Institute's Patch-seq of excitatory cells of layers 2 and 3 (Berg et al. 2021).

The mouse cells stand in the tables of the mouse Patch-seq cells too, without a t-type, and have all
features from there but ``upstroke_rheo``. Of the human cells there are 18, under other names, which
are those of the other tables: on mouse cells in both Spearman's correlation is 0.95 or more for all
that can be compared. Most human cells are of donors of the human interneurons.
"""

from __future__ import annotations

import pandas as pd

from crosspatch.cohorts import harmonised
from crosspatch.cohorts.dataset import Dataset, SourceCells, register
from crosspatch.cohorts.datasets.allen import LICENCE, MOUSE_FILES, PATCH_SEQ, mouse_features
from crosspatch.cohorts.sources import (
    FeatureColumn,
    Key,
    SourceReader,
    cells_in,
    listed,
    unique_cells,
)
from crosspatch.errors import CohortError
from crosspatch.features.layouts import Layout
from crosspatch.species import SpeciesName

_FOLDER = "allen_l23_excitatory"
_FEATURES = f"{_FOLDER}/human_mouse_ephys_all_0127.csv"
_KEY = "SpecimenID"
_HUMAN_OBS = {
    "t_type": "SeuratMapping",
    "lobe": "region",
    "disease": "medical_conditions",
    "sex": "gender",
    "age": "age",
    "post_patch": "postPatch",
    "t_type_confidence": "SeuratMappingScore",
}
_MOUSE_OBS = {
    "t_type": "SeuratMapping",
    "genotype": "genotype_label",
    "post_patch": "postPatch_label",
    "t_type_confidence": "SeuratMappingScore",
}
_NAMES = {
    "v_baseline": "v_baseline",
    "sag": "sag",
    "input_resistance": "input_resistance",
    "rheobase_i": "rheobase_i",
    "fi_fit_slope": "fi_fit_slope",
    "latency_rheo": "latency_rheo",
    "upstroke_downstroke_ratio_rheo": "upstroke_downstroke_ratio_long_square",
    "threshold_v_rheo": "threshold_v_long_square",
    "upstroke_rheo": "upstroke_long_square",
    "downstroke_rheo": "downstroke_long_square",
    "peak_deltav_rheo": "peak_v_long_square_rel",
    "fast_trough_deltav_rheo": "fast_trough_v_long_square_rel",
    "trough_deltav_rheo": "trough_v_long_square_rel",
    "avg_rate_hero": "avg_rate_hero",
    "first_isi_inv_hero": "first_isi_hero_inv",
    "adapt_mean": "adapt_mean",
}
_HUMAN_COLUMNS = [
    *(FeatureColumn(name, _FEATURES, column) for name, column in _NAMES.items()),
    FeatureColumn("tau", _FEATURES, "tau", "multiply", "1000"),
    FeatureColumn("width_rheo", _FEATURES, "width_long_square", "multiply", "1000"),
]


def _cells(
    reader: SourceReader, table: str, donor: str, obs: dict[str, str]
) -> tuple[pd.DataFrame, str]:
    rows, file = reader.read(f"{_FOLDER}/{table}.csv", [_KEY, donor, *obs.values()])
    rows = unique_cells(rows, file, _KEY)
    cells = cells_in(rows, file, obs, harmonised.human_donors(rows[donor]))
    cells["post_patch"] = harmonised.post_patch(cells["post_patch"])
    cells["layer"] = "2/3"
    cells["label"] = "excitatory"
    return cells, f"{file}, which has excitatory cells only"


def _read_human(reader: SourceReader, layout: Layout) -> SourceCells:
    table = "human_IVSCC_excitatory_L23_consolidated_0131"
    cells, labels_from = _cells(reader, table, "donor", _HUMAN_OBS)
    cells["lobe"] = harmonised.lobes(cells["lobe"].str.capitalize())
    cells["disease"] = harmonised.diseases(cells["disease"])
    values = reader.features(_HUMAN_COLUMNS, layout, {_FEATURES: Key("specimen_id")})
    return SourceCells(cells, values, labels_from)


def _read_mouse(reader: SourceReader, layout: Layout) -> SourceCells:
    table = "mouse_IVSCC_excitatory_L23_consolidated_0129"
    cells, labels_from = _cells(reader, table, "donor_mouse", _MOUSE_OBS)
    key, session = "cell_specimen_id", "ephys_session_id"
    rows, file = reader.read(MOUSE_FILES[0].path, [key, session, "donor_id"])
    rows = unique_cells(rows, file, key).reindex(cells.index)
    odd = cells.index[rows["donor_id"] != cells["donor"]]
    if len(odd):
        raise CohortError(
            f"{file}: cell {odd[0]} of {table}.csv is not there, or of another donor "
            f"({len(odd)} such cells); get both files again"
        )
    cells[session] = rows[session]
    return SourceCells(cells, mouse_features(reader, layout, cells[session]), labels_from)


_species: SpeciesName
for _species, _layouts, _files, _read, _taxonomy in (
    ("mouse", ("shared",), MOUSE_FILES, _read_mouse, "tasic2018"),
    ("human", ("shared", "full"), (), _read_human, "hodge2019"),
):
    register(
        Dataset(
            name=f"allen-l23-{_species}",
            species=_species,
            layouts=_layouts,
            files=(*listed(_FOLDER), *_files),
            labels={"excitatory": "Glutamatergic"},
            outside={},
            read=_read,
            licence=LICENCE,
            cite=("berg2021", *(("gouwens2020",) if _species == "mouse" else ())),
            authors="Berg et al. 2021",
            citation="Berg et al.: Human neocortical expansion involves glutamatergic neuron "
            f"diversification. Nature 598 (2021): excitatory {_species} cells of layers 2 and 3.",
            taxonomy=_taxonomy,
            rig=PATCH_SEQ,
        )
    )
