from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest

from crosspatch.models.artifact import Artifact
from crosspatch.prediction.training import train
from tests import made

COUNTS = {"Lamp5": 60, "Pvalb": 120, "Sst": 100, "Vip": 80}
#: Which layers the cells of a made-up subclass lie in.
LAYERS = {"Lamp5": ["L1"], "Pvalb": ["5", "6a"], "Sst": ["5", "6a"], "Vip": ["2/3"]}


def layered_cells(seed: int) -> anndata.AnnData:
    """Cells whose features tell little, and of three in four the layer, which tells more."""
    cohort = made.cohort("human", COUNTS, donors=50, spread=4.0, seed=seed)
    rng = np.random.default_rng(seed)
    layers = [str(rng.choice(LAYERS[name])) for name in cohort.obs["subclass"]]
    cohort.obs["layer"] = [
        layer if share < 0.75 else None
        for layer, share in zip(layers, rng.random(len(layers)), strict=True)
    ]
    return cohort


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory) -> dict[str, Path]:
    """Small models of made-up cells, a species each."""
    folder = tmp_path_factory.mktemp("trained")
    for species in ("human", "mouse"):
        cohort = made.cohort(species, COUNTS, donors=50, spread=1.5)
        train(cohort, model="logistic", out=folder / species)
    return {species: folder / species for species in ("human", "mouse")}


@pytest.fixture(scope="session")
def models(model_folders) -> dict[str, Artifact]:
    from crosspatch.models.artifact import load

    return {species: load(folder) for species, folder in model_folders.items()}
