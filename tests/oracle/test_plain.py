"""The default models as plain arrays, beside the libraries that fitted them, on the real cells."""

from __future__ import annotations

import numpy as np
import pytest

from crosspatch.cohorts.cells import cells_of
from crosspatch.cohorts.loading import load_cohort
from crosspatch.models.absence import with_copies
from crosspatch.models.plain import plain_model
from crosspatch.models.registry import model_entry
from crosspatch.species import SPECIES


@pytest.mark.parametrize("species", list(SPECIES))
def test_default_models_predict_as_their_libraries_do(real_data, species):
    cells = cells_of(
        load_cohort(f"allen-{species}", SPECIES[species].default_layout, real_data), None
    )
    X, _ = with_copies(cells.X, cells.layout, 2, np.random.default_rng(0))
    for _, build in model_entry(SPECIES[species].best_model).settings:
        model = build(cells.layout, 0, "cpu").fit(cells.X, cells.y)
        plain = plain_model(model)
        assert plain is not None
        for some in (X, X[:50]):  # compiled, and not
            np.testing.assert_allclose(
                plain.predict_proba(some), model.predict_proba(some), rtol=0, atol=1e-12
            )
