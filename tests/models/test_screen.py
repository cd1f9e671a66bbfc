"""Excitatory cells told from interneurons in laboratories that no cell was known of."""

from __future__ import annotations

import numpy as np
import pytest

from crosspatch.errors import ModelError
from crosspatch.features.layouts import load_layout
from crosspatch.models.calibration import GROUPS
from crosspatch.models.screen import GRID, Limits, Screen
from crosspatch.models.screening import HeldKinds, KindCells, fit_screen, held_limits
from crosspatch.models.verdicts import Screened, Verdict, verdicts

SHARED = load_layout("shared")
NAMES = SHARED.feature_names


def rig_cells(rig: str, shift: float, seed: int, lacking: tuple[str, ...] = ()) -> KindCells:
    """Both kinds, three standard deviations apart in three features; the rig shifts the others."""
    rng = np.random.default_rng(seed)
    excitatory = np.arange(240) % 3 == 0
    X = rng.normal(size=(240, len(NAMES))) + 5.0
    for name in ("width_rheo", "upstroke_downstroke_ratio_rheo", "fast_trough_deltav_rheo"):
        X[:, NAMES.index(name)] += 3.0 * excitatory
    for name in ("v_baseline", "input_resistance", "tau"):
        X[:, NAMES.index(name)] += shift
    X[:, [NAMES.index(name) for name in lacking]] = np.nan
    donors = np.array([f"{rig}-{k}" for k in np.arange(240) // 6])
    return KindCells(X.astype(np.float32), excitatory, np.full(240, rig), donors)


def together(*parts: KindCells) -> KindCells:
    return KindCells._make(np.concatenate(part) for part in zip(*parts, strict=True))


@pytest.fixture(scope="module")
def screen() -> Screen:
    known = together(
        rig_cells("one", 0.0, 1),
        rig_cells("two", 3.0, 2),
        rig_cells("three", -2.0, 3, ("upstroke_rheo", "sag")),
    )
    return fit_screen(SHARED, known, ("made-one", "made-two", "made-three"))


def test_another_rig_s_excitatory_cells_are_found_and_its_interneurons_kept(screen: Screen):
    """Its shift is none of those that were seen, and it lacks other features."""
    cells = rig_cells("four", 5.0, 4, ("latency_rheo", "tau"))
    found = screen.compare(cells.X)
    assert found.interneuron[~cells.excitatory].mean() > 0.95
    assert found.excitatory[cells.excitatory].mean() > 0.95
    assert found.interneuron[cells.excitatory].mean() < 0.2
    assert found.excitatory[~cells.excitatory].mean() < 0.2


def test_a_kind_is_not_told_by_what_a_rig_lacks():
    """One rig measured a feature of interneurons alone: no cell is excitatory for lacking it."""
    one = rig_cells("one", 0.0, 1)
    one.X[one.excitatory, NAMES.index("sag")] = np.nan
    known = together(one, rig_cells("two", 3.0, 2), rig_cells("three", -2.0, 3))
    screen = fit_screen(SHARED, known, ())
    cells = rig_cells("four", 0.0, 4)
    lacking = cells.X.copy()
    lacking[:, NAMES.index("sag")] = np.nan
    whole, less = (screen.compare(X).interneuron for X in (cells.X, lacking))
    assert less[~cells.excitatory].mean() > 0.95
    assert (whole == less).mean() > 0.97


def test_with_little_measured_a_cell_may_be_either(screen: Screen):
    cells = rig_cells("four", 0.0, 4)
    X = np.full_like(cells.X, np.nan)
    X[:, NAMES.index("v_baseline")] = cells.X[:, NAMES.index("v_baseline")]
    found = screen.compare(X)
    assert (found.interneuron & found.excitatory).mean() > 0.9
    assert (screen.compare(np.full_like(X, np.nan)).interneuron).all()


def test_what_is_stored_says_the_same(screen: Screen):
    cells = rig_cells("four", 1.0, 4)
    again = Screen.of_arrays(SHARED, screen.arrays())
    for one, other in zip(screen.compare(cells.X), again.compare(cells.X), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.datasets == screen.datasets
    broken = screen.arrays()
    broken["limits.excitatory"] = broken["limits.excitatory"][:, ::-1]
    with pytest.raises(ModelError, match="not in order"):
        Screen.of_arrays(SHARED, broken)


def test_p_values_are_shares():
    """p-values are shares of the cells that were held out."""
    grid = np.tile(np.arange(GRID, dtype=float), (GROUPS, 1))
    limits = Limits(np.zeros(GROUPS), grid, grid + 100.0, grid)
    found = limits.compare(np.array([-1.0, 600.0]), np.array([0.0, 1e6]), np.ones(2))
    assert found.p_interneuron.tolist() == [1.0, 1 / (GRID + 1)]
    assert found.p_excitatory.tolist() == [1 / (GRID + 1), 1.0]
    assert found.p_known.tolist() == [1.0, 1 / (GRID + 1)]


def test_two_rigs_are_too_few():
    known = together(rig_cells("one", 0.0, 1), rig_cells("two", 3.0, 2))
    with pytest.raises(ModelError, match="cells of 3 rigs are needed, there are 2"):
        fit_screen(SHARED, known, ())


def test_the_rule_for_verdicts_with_a_screen():
    """Interneuron; maybe excitatory; excitatory; of neither kind; neither likely; too little."""
    p = np.array([[0.9, 0.1]] * 6 + [[np.nan, np.nan]])
    sets = np.array([[1, 0]] * 7, dtype=bool)
    screened = Screened(
        np.array([0.5, 0.5, 0.01, 0.01, 0.02, 0.001, 0.01]),
        np.array([0.01, 0.5, 0.5, 0.5, 0.01, 0.09, 0.5]),
        np.array([1.0, 1.0, 1.0, 0.001, 1.0, 1.0, 1.0]),
    )
    found = verdicts(p, sets, np.full(7, 0.5), screened)
    assert found.tolist() == [
        Verdict.CONFIDENT,
        Verdict.AMBIGUOUS,
        Verdict.NOT_INTERNEURON,
        Verdict.OUTSIDE,
        Verdict.CONFIDENT,
        Verdict.NOT_INTERNEURON,
        Verdict.INSUFFICIENT,
    ]
    assert verdicts(
        p[:3], sets[:3], np.full(3, 0.01), Screened(*(s[:3] for s in screened))
    ).tolist() == [Verdict.OUTSIDE, Verdict.OUTSIDE, Verdict.NOT_INTERNEURON]


def test_limits_hold_over_rigs_and_nearly_in_each():
    """Of three rigs one has lower scores; of its excitatory cells 13 % may be below the limit."""
    rng = np.random.default_rng(0)
    cells = together(*(rig_cells(rig, 0.0, k) for k, rig in enumerate(("one", "two", "three"))))
    score = rng.normal(size=len(cells.X)) + 4.0 * cells.excitatory - 1.0 * (cells.rigs == "three")
    held = HeldKinds(
        np.arange(len(score)), np.ones(len(score), bool), score, np.abs(score), np.ones(len(score))
    )
    limits = held_limits(cells, held)
    found = limits.compare(held.score, held.distance, held.information)
    low = {
        rig: (found.p_excitatory < 0.1)[(cells.rigs == rig) & cells.excitatory].mean()
        for rig in ("one", "two", "three")
    }
    assert 0.09 < low["three"] <= 0.13
    assert low["one"] < 0.08
    assert low["two"] < 0.08
    lost = (found.p_interneuron < 0.03)[~cells.excitatory]
    assert 0.01 < lost.mean() <= 0.03
