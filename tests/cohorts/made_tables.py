"""A data directory with made-up tables of every dataset, in which cells and donors stand twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosspatch.cohorts.sources import feature_columns
from tests import made

CELLS = 12
LINES = ["Pvalb-IRES-Cre", "Sst-IRES-Cre", "Vip-IRES-Cre", "Ndnf-IRES2-dgCre"]
FAMILIES = ["Pvalb", "Sst", "Vip", "Lamp5", "Sncg", "IT", "CT", "ET", "NP", "low quality"]
SCALA_FEATURES = [
    *("Resting membrane potential (mV)", "Input resistance (MOhm)", "Membrane time constant (ms)"),
    *("Rheobase (pA)", "Latency (ms)", "Upstroke-to-downstroke ratio", "AP amplitude (mV)"),
    *("Afterhyperpolarization (mV)", "AP width (ms)", "Sag ratio", "AP threshold (mV)"),
]
EXCITATORY_FEATURES = [
    *("adapt_mean", "avg_rate_hero", "downstroke_long_square", "fast_trough_v_long_square_rel"),
    *("fi_fit_slope", "first_isi_hero_inv", "input_resistance", "latency_rheo"),
    *("peak_v_long_square_rel", "rheobase_i", "sag", "tau", "threshold_v_long_square"),
    *("trough_v_long_square_rel", "upstroke_downstroke_ratio_long_square"),
    *("upstroke_long_square", "v_baseline", "width_long_square"),
]


def data_directory(folder: Path) -> Path:
    """That of `made.data_directory`, and the tables of the other datasets."""
    made.data_directory(folder, CELLS)
    rng = np.random.default_rng(6)
    ids = np.arange(CELLS)

    def values(names: list[str]) -> pd.DataFrame:
        return pd.DataFrame(rng.uniform(1, 2, size=(CELLS, len(names))).round(6), columns=names)

    human = ids >= 8
    dendrite = np.where(human, np.where(ids % 2, "spiny", "aspiny"), "aspiny").astype(object)
    dendrite[6:8] = "spiny"
    details = pd.DataFrame(
        {
            "specimen__id": 6000 + ids,
            "line_name": [None if k >= 8 else LINES[k % 4] for k in ids],
            "cell_reporter_status": ["negative" if k == 0 else "positive" for k in ids],
            "tag__dendrite_type": dendrite,
            "structure__acronym": np.where(human, "MTG", "VISp5"),
            "structure__layer": np.where(human, "3", "6a"),
            "donor__species": np.where(human, "Homo Sapiens", "Mus musculus"),
            # The number of an animal is unlike any of the Patch-seq cells'; a person's is not.
            "donor__name": [f"Line-IRES-Cre;Ai14-{700 + k % 3}" for k in ids[:8]]
            + ["H17.03.001", "H16.06.001", "H16.06.002", "H16.06.002"],
            "donor__disease_state": "epilepsy",
            "donor__sex": "Male",
            "donor__age": "P56",
        }
    )
    shared = {c for each in feature_columns("allen-mouse") for c in each.columns}
    database = values(sorted(shared)).assign(specimen_id=6000 + ids)
    database = database.assign(adaptation=0.1, avg_isi=40.0, threshold_t_long_square=1.27)

    families = pd.DataFrame(
        {
            "Cell": [f"20180101_sample_{k}" for k in ids],
            "Mouse": [f"mouse_{'ABC'[k % 3]}" for k in ids],
            "RNA family": [FAMILIES[k % 10] for k in ids],
            "RNA type": "some type",
            "RNA type confidence": 0.9,
            "Inferred layer": "2/3",
            "Cre": "PV+",
            "Mouse genotype": "wt",
            "Mouse gender": "F",
            "Mouse age": 60,
            "Exclusion reasons": [None if k != 11 else "outside of M1" for k in ids],
        }
    )
    scala = values(SCALA_FEATURES).assign(**{"cell id": families["Cell"]})
    scala.loc[0, "Rheobase (pA)"] = 0

    # The mouse cells are the last three of the Patch-seq table, which have no t-type there.
    patchseq = folder / "allen_mouse_visp" / "20200711_patchseq_metadata_mouse.csv"
    known = pd.read_csv(patchseq)
    known.loc[9:, "T-type Label"] = None
    known.to_csv(patchseq, index=False)
    mapped: dict[str, Any] = {"SeuratMapping": "Exc L2 LAMP5 LTK", "SeuratMappingScore": 0.8}
    mouse = pd.DataFrame({"SpecimenID": known["cell_specimen_id"][9:]}).assign(
        donor_mouse=known["donor_id"][9:],
        genotype_label="wt",
        postPatch_label="nucleus_present",
        **mapped,
    )
    people = pd.DataFrame(
        {
            "SpecimenID": 7000 + ids,
            "donor": ["h17.03.002" if k < 8 else "H18.06.009" for k in ids],
            "region": "temporal",
            "medical_conditions": "Epilepsy",
            "gender": "female",
            "age": 24,
            "postPatch": "nucleus_absent",
            **mapped,
        }
    )
    excitatory = values(EXCITATORY_FEATURES).assign(specimen_id=7000 + ids)
    place = "allen_l23_excitatory"
    for path, frame in {
        "allen_cell_types/cell_types_specimen_details.csv": details,
        "allen_cell_types/ephys_features.csv": database,
        "scala_mouse_m1/m1_patchseq_ephys_features.csv": scala,
        f"{place}/mouse_IVSCC_excitatory_L23_consolidated_0129.csv": mouse,
        f"{place}/human_IVSCC_excitatory_L23_consolidated_0131.csv": people,
        f"{place}/human_mouse_ephys_all_0127.csv": excitatory,
    }.items():
        (folder / path).parent.mkdir(exist_ok=True)
        frame.to_csv(folder / path, index=False)
    families.to_csv(folder / "scala_mouse_m1" / "m1_patchseq_meta_data.csv", sep="\t", index=False)
    return folder
