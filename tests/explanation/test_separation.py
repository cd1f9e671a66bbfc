from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples, silhouette_score

from crosspatch.errors import EvaluationError
from crosspatch.explanation.components import cells_by_species, spaces_of
from crosspatch.explanation.result_tables import TABLE_COLUMNS
from crosspatch.explanation.separation import separation, separation_table
from tests import made


def gaussians(distance: float, cells: int = 400, donors: int = 100, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = np.repeat(["Pvalb", "Sst"], cells)
    Z = rng.normal(size=(2 * cells, 5))
    Z[:cells, 1] += distance
    return Z, y, rng.integers(donors, size=2 * cells).astype(str)


def value(found, metric: str, a: str = "all", column: str = "value") -> float:
    return float(found[(found["metric"] == metric) & (found["a"] == a)][column].iloc[0])


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_d_prime_of_two_gaussians_is_their_distance(distance: float) -> None:
    found = separation(*gaussians(distance), permutations=1)
    assert value(found, "d_prime", "Pvalb") == pytest.approx(distance, abs=0.25)


def test_d_prime_of_noise_in_many_dimensions_is_not_above_zero() -> None:
    """Along the line through the means of its own cells it would be about 1.4."""
    rng = np.random.default_rng(0)
    y = np.repeat(["Pvalb", "Sst"], 40)
    found = [
        value(
            separation(rng.normal(size=(80, 40)), y, np.arange(80), permutations=1),
            "d_prime",
            "Pvalb",
        )
        for _ in range(10)
    ]
    assert np.mean(found) < 0.2


def test_silhouettes_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y = np.array(["Lamp5"] * 30 + ["Pvalb"] * 20 + ["Sst"] * 10 + ["Vip"])
    Z = rng.normal(size=(len(y), 3)) + 1.5 * (y == "Pvalb")[:, None]
    found = separation(Z, y, np.arange(len(y)), permutations=1)
    assert value(found, "silhouette") == pytest.approx(silhouette_score(Z, y), abs=1e-5)
    of_cells = silhouette_samples(Z, y)
    for name in set(y):
        mean = of_cells[y == name].mean()
        assert value(found, "silhouette", name) == pytest.approx(mean, abs=1e-5)
    assert np.isnan(found[found["b"] == "Vip"]["value"]).all()  # one cell has no spread


def test_classes_apart_are_significant_and_shuffled_ones_are_not() -> None:
    Z, y, donors = gaussians(3.0, cells=60, donors=30)
    found = separation(Z, y, donors, permutations=99)
    assert (found[found["a"].isin(["all", "Pvalb"])]["p_value"] == 0.01).all()
    assert set(found["permutations"]) == {99}
    shuffled = np.random.default_rng(3).permutation(y)
    assert (separation(Z, shuffled, donors, permutations=99)["p_value"] > 0.05).all()
    again = separation(Z, y, donors, permutations=99)
    assert again.equals(found)


def test_donors_that_differ_do_not_pass_for_classes() -> None:
    """Ten donors, each of one class and each unlike the others: nothing is known of classes."""
    p_values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        donor = np.repeat(np.arange(10), 6)
        y = np.repeat(rng.permutation(["Pvalb"] * 5 + ["Sst"] * 5), 6)
        Z = 2 * rng.normal(size=(10, 4))[donor] + rng.normal(size=(60, 4))
        found = separation(Z, y, donor, permutations=19, seed=seed)
        p_values.append(
            [
                value(found, "silhouette", column="p_value"),
                value(found, "d_prime", "Pvalb", column="p_value"),
            ]
        )
    # 5 % expected; free shuffling of the cells gives 86 % for the silhouette and 20 % for d′.
    assert (np.array(p_values) <= 0.05).mean(axis=0).max() <= 0.2
    assert 0.3 < np.mean(p_values) < 0.7


def test_a_donor_of_every_class_stays_whole() -> None:
    """Where nothing can be exchanged, nothing is significant."""
    y = np.repeat(["Pvalb", "Sst"], [10, 12])
    Z = np.random.default_rng(0).normal(size=(22, 3)) + 5 * (y == "Sst")[:, None]
    found = separation(Z, y, y, permutations=19)
    assert (found["p_value"].dropna() == 1.0).all()


def test_table_of_both_species() -> None:
    cohorts = {name: made.cohort(name, layout=made.SMALL) for name in ("mouse", "human")}
    spaces = spaces_of(cells_by_species(cohorts))
    found = separation_table(spaces, permutations=9)
    assert list(found.columns) == TABLE_COLUMNS["separation"]
    assert len(found) == 2 * (1 + 4 + 6)
    assert set(found["features"]) == {"small"}
    human = found[found["species"] == "human"]
    space = spaces["human"]
    # Cells without a family are not measured.
    assert space.complete.sum() < len(space.scores)
    assert human["cells"].iloc[0] == space.complete.sum()
    assert human["components"].iloc[0] == space.scores.shape[1]
    assert (human["p_value"] == 0.1).all()
    again = separation_table(spaces_of(cells_by_species(cohorts)), permutations=9)
    assert again.equals(found)


def test_one_class_or_donor_is_refused() -> None:
    with pytest.raises(EvaluationError, match="two subclasses"):
        separation(np.zeros((3, 2)), ["Sst"] * 3, ["a", "b", "c"])
    with pytest.raises(EvaluationError, match="two donors"):
        separation(np.zeros((2, 2)), ["Sst", "Vip"], ["a", "a"])
    cohort = made.cohort("human", {"Sst": 30}, layout=made.SMALL)
    with pytest.raises(EvaluationError, match="human cells that have every family"):
        separation_table(spaces_of(cells_by_species({"human": cohort})))
