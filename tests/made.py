"""Made-up cells and data directories, for tests that need no real data."""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from crosspatch.cohorts import table
from crosspatch.features.layouts import Feature, Layout, load_layout

#: A small layout: three families of unlike widths.
SMALL = Layout(
    "small",
    tuple(
        Feature(f"{family}_{k}", family, ("mV", "ms", "pA", "ratio")[k % 4])
        for family, n in (("subthreshold", 8), ("spike", 7), ("train", 6))
        for k in range(n)
    ),
)


def features(
    layout: Layout, y: np.ndarray, seed: int = 0, spread: float = 1.0, missing: float = 0.05
) -> np.ndarray:
    """Gaussian classes with missing values and absent families; no cell is empty."""
    rng = np.random.default_rng(seed)
    names = sorted(set(y))
    centres = np.random.default_rng(99).normal(size=(len(names), len(layout.features)))
    X = centres[np.searchsorted(names, y)] + spread * rng.normal(size=(len(y), centres.shape[1]))
    X[rng.random(X.shape) < missing] = np.nan
    for columns in list(layout.columns.values())[1:]:
        X[np.ix_(np.flatnonzero(rng.random(len(y)) < missing), columns)] = np.nan
    X[:, 0] = np.where(np.isnan(X).all(axis=1), 0.0, X[:, 0])
    return X


def labels(counts: dict[str, int], seed: int = 0) -> np.ndarray:
    """Shuffled class names."""
    y = np.repeat(list(counts), list(counts.values()))
    return np.random.default_rng(seed).permutation(y)


def cohort(
    species: str = "human",
    counts: dict[str, int] | None = None,
    *,
    donors: int = 20,
    layout: Layout | None = None,
    seed: int = 0,
    spread: float = 1.0,
) -> anndata.AnnData:
    """A valid cohort table of made-up cells."""
    counts = counts or {"Lamp5": 25, "Pvalb": 50, "Sst": 40, "Vip": 30}
    layout = layout or load_layout("shared")
    y = labels(counts, seed)
    rng = np.random.default_rng(seed + 1)
    cells = pd.DataFrame(
        {
            "species": species,
            "subclass": y,
            "t_type": y,
            "donor": [f"{species}-{k}" for k in rng.integers(donors, size=len(y))],
            "dataset": f"made-{species}",
        },
        index=pd.Index([f"{species}-{k}" for k in range(len(y))], name="cell_id"),
    )
    X = features(layout, y, seed, spread)
    return table.build(X, cells, layout, table.Head({}, True, {}, {}))


def own_table(cells: int = 120, donors: int = 15, seed: int = 0) -> pd.DataFrame:
    """A laboratory's own labelled table: two classes, two features of ours, two of its own."""
    rng = np.random.default_rng(seed)
    fast = np.arange(cells) % 2 == 0
    return pd.DataFrame(
        {
            "Neuron ID": [f"n{k:03d}" for k in range(cells)],
            "mouse": [f"m{k}" for k in rng.integers(donors, size=cells)],
            "type": np.where(fast, "FS", "RS"),
            "Rin (MOhm)": np.where(fast, 120, 180) + rng.normal(0, 25, cells),
            "half width (ms)": np.where(fast, 0.4, 0.9) * rng.lognormal(0, 0.25, cells),
            "Wildness": fast + rng.normal(0, 0.8, cells),
            "hump (mV)": 3 * fast + rng.normal(5, 2, cells),
        }
    )


MOUSE_TYPES = ["Lamp5 Lsp1", "Pvalb Reln", "Sst Chodl", "Vip Gpc3", "Sncg Gpr50"]
HUMAN_LABELS = ["LAMP5/PAX6/Other", "PVALB", "SST", "VIP"]
HUMAN_TYPES = ["LAMP5 LCP2", "PVALB MEPE", "SST TH", "VIP TYR"]
#: Of layer 1; the last is in no other table.
LAYER_1_TYPES = ["LAMP5 LCP2", "VIP TYR", "LAMP5 NMBR"]
SEA_AD_TYPES = ["Lamp5_Lhx6", "Chandelier", "Sst Chodl", "Sncg"]


def data_directory(folder: Path, cells: int = 12) -> Path:
    """A data directory with the files and columns of the real one, and made-up cells."""
    from crosspatch.cohorts.sources import feature_columns

    rng = np.random.default_rng(5)
    ids = np.arange(cells)
    frames: dict[str, pd.DataFrame] = {
        "allen_mouse_visp/20200711_patchseq_metadata_mouse.csv": pd.DataFrame(
            {
                "cell_specimen_id": 1000 + ids,
                "donor_id": 10 + ids % 4,
                "T-type Label": [MOUSE_TYPES[k % 5] for k in ids],
                "MET-type Label": "NULL",
                "structure": "VISp1",
                "biological_sex": "M",
                "age": "P50",
                "full_genotype": "wt",
                "ephys_session_id": 2000 + ids,
            }
        ),
        "allen_mouse_visp/efeature.csv": pd.DataFrame(
            {"ID": [f"sub-1_ses-{2000 + k}_icephys.nwb" for k in ids]}
        ),
        "allen_mouse_visp/ephys_features_gouwens_w_QC.csv": pd.DataFrame(
            {"filename": [f"sub-1_ses-{2000 + k}_icephys.nwb" for k in ids]}
        ),
        "allen_mouse_visp/gouwens_tasic_byCell.csv.gz": pd.DataFrame(
            {
                "cell_id": [f"Cell #{1000 + k}" for k in ids],
                "Cortical layer": "L2/3",
                "T type assignment probability": 0.9,
            }
        ),
        "allen_human_gaba/LeeDalley_ephys_fx.csv": pd.DataFrame({"specimen_id": 3000 + ids}),
        "allen_human_gaba/LeeDalley_manuscript_metadata_v2.csv": pd.DataFrame(
            {
                "specimen_id_x": 3000 + ids,
                "Donor": ["h17.03.001" if k == 0 else f"H17.03.00{1 + k % 3}" for k in ids],
                "Revised_subclass_label": [HUMAN_LABELS[k % 4] for k in ids],
                "Transcriptomic_type ": [f"Inh L1-2 {HUMAN_TYPES[k % 4]}" for k in ids],
                "M_H_Hodge_cross_species_types": "",
                "Cortical_layer": "2",
                "structure": "MTG",
                "lobe": "TemL",
                "condition": "acute",
                "condition2": "acute",
                "disease_category": "epilepsy",
                "Days_In_culture": 0,
                "subclass_label": [HUMAN_LABELS[k % 4] for k in ids],
                "nwb_id": 4000 + ids,
            }
        ),
        "allen_human_gaba/DataS1_Donor_table.csv": pd.DataFrame(
            {"Donor": [f"H17.03.00{k}" for k in (1, 2, 3)], "Sex": ["M", "F", "F"], "Age": "40 yrs"}
        ),
        "allen_human_gaba/LeeDalley_byCell.csv": pd.DataFrame(
            {
                "specimen_id_x": 3000 + ids,
                "bootstrap_probability": 0.8,
                "postPatch": ["Partial-Nucleus" if k == 0 else "nucleus_present" for k in ids],
            }
        ),
        "human_patchseq_labels/patchseq_all_features.csv": pd.DataFrame(
            {
                "specimen_id": np.concatenate([3000 + ids, 5000 + ids]),
                "subclass_scANVI": [
                    *(SEA_AD_TYPES[k % 4] for k in ids),
                    *["Pax6"] * (cells - 1),
                    "L4 IT",
                ],
                "subclass_conf_scANVI": 0.99,
                "supertype_scANVI": "Pax6_2",
            }
        ),
        "allen_human_l1/human_l1_dataset_2023_02_06.csv": pd.DataFrame(
            {
                # The first two cells, and the donors, are also those of the table above.
                "spec_id": np.where(ids < 2, 3000, 5000) + ids,
                "donor_name": [
                    *("H17.03.001", "H17.03.002"),
                    *["H18.06.001"] * (cells - 3),
                    "h17.03.003",
                ],
                "t-type": [LAYER_1_TYPES[k % 3] for k in ids],
                "structure": "MTG",
                "roi": "TCx_L1",
                "medical_conditions": "Tumor status - primary",
                "donor_sex": "F",
                "donor_age": "40 yrs",
                "postPatch": "nucleus_absent",
                "layer_lims": ["" if k == 0 else "1" for k in ids],
                "target_layer": "1.0",
            }
        ),
        "allen_human_l1/aibs_features_E.csv": pd.DataFrame(
            {"cell_name": np.where(ids < 2, 3000, 5000) + ids}
        ),
    }
    for dataset in ("allen-mouse", "allen-human"):
        for feature in feature_columns(dataset):
            for column in feature.columns:
                frames[feature.file][column] = rng.uniform(1, 2, size=cells).round(6)
    of_layer_1 = frames["allen_human_l1/aibs_features_E.csv"]
    for column in frames["allen_human_gaba/LeeDalley_ephys_fx.csv"].columns[1:]:
        # There troughs are potentials, their depths are not.
        name = column.removeprefix("trough_deltav_")
        name = column if name == column else f"trough_v_{name}"
        of_layer_1[name] = rng.uniform(1, 2, size=cells).round(6)
    for path, frame in frames.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        text = frame.to_csv(index=False)
        content = gzip.compress(text.encode()) if path.endswith(".gz") else text.encode()
        (folder / path).write_bytes(content)
    return folder
