"""Labels of the human cells by another taxonomy, that of SEA-AD.

Transcriptomes of both human cohorts were mapped to it by scANVI. Of the cells that Lee, Dalley et
al. call GABAergic it holds some for excitatory, which are doubtful: these are in no class.
"""

from __future__ import annotations

import pandas as pd

from crosspatch.cohorts.dataset import Labelling
from crosspatch.cohorts.sources import SourceReader, listed, numeric, unique_cells

FILES = listed("human_patchseq_labels")
SEA_AD = "sea-ad"
_COLUMN = "sea_ad_type"
_DOUBTFUL = "excitatory by SEA-AD, GABAergic by those who published it"
#: Pax6 counts as Lamp5, as in Lee, Dalley et al. 2023, and Sncg as Vip, as in Hodge et al. 2019.
LABELLING = Labelling(
    _COLUMN,
    {
        "Lamp5": "Lamp5",
        "Lamp5_Lhx6": "Lamp5",
        "Pax6": "Lamp5",
        "Pvalb": "Pvalb",
        "Chandelier": "Pvalb",
        "Sst": "Sst",
        "Sst Chodl": "Sst",
        "Vip": "Vip",
        "Sncg": "Vip",
    },
    dict.fromkeys(("L2/3 IT", "L4 IT", "L5 IT"), _DOUBTFUL),
)


def add_labels(cells: pd.DataFrame, reader: SourceReader) -> None:
    """Give cells their type and supertype by SEA-AD, and the confidence in the type."""
    key, label, confidence = "specimen_id", "subclass_scANVI", "subclass_conf_scANVI"
    rows, file = reader.read(FILES[0].path, [key, label, confidence, "supertype_scANVI"])
    rows = unique_cells(rows, file, key)
    cells[_COLUMN] = rows[label].reindex(cells.index)
    cells["sea_ad_confidence"] = numeric(rows, confidence, file).reindex(cells.index)
    cells["sea_ad_supertype"] = rows["supertype_scANVI"].reindex(cells.index)
