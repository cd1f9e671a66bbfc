from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.drawing.style import NARROW, WIDE, save_figure
from crosspatch.features.layouts import Feature, load_layout
from crosspatch.reporting.conserved_figures import MOST_FEATURES, conserved_figure
from crosspatch.reporting.explanation_figures import (
    agreement_figure,
    attention_figure,
    importance_figure,
)
from crosspatch.reporting.family_figures import examples_figure, loadings_figure
from crosspatch.reporting.map_figures import map_figure, separation_figure

BOTH = ("mouse", "human")
FOUR = ("Lamp5", "Pvalb", "Sst", "Vip")
FIVE = load_taxonomy().subclasses
SHARED = load_layout("shared").families
TRACES = load_layout("gouwens").families
TEN = load_layout("full").families
LONG = tuple(f"family_{k}_with_a_name_of_more_than_a_few_words_in_it" for k in range(6))
WEAK = "(weak evidence: 6 families)"
VERDICT = f"not shown that families matter alike in mouse and human {WEAK}"


def columns_of(names: str) -> list[str]:
    return names.split()


def attention_table(families=SHARED, species=BOTH, classes=FOUR, models=1):
    rng = np.random.default_rng(0)
    rows = []
    for name, model, group in itertools.product(
        species, [f"bilstm-attention-{k}" for k in range(models)], ("all", *classes)
    ):
        weights = rng.dirichlet(np.full(len(families), 3.0))
        rows += [
            (name, "shared", model, group, family, weight, 0.02, 100)
            for family, weight in zip(families, weights, strict=True)
        ]
    columns = ["species", "features", "model", "subclass", "family", "weight", "sd", "cells"]
    return pd.DataFrame(rows, columns=columns)


def importance_table(families=SHARED, species=BOTH, classes=FOUR, models=1):
    rng = np.random.default_rng(1)
    rows = []
    for name, model, how, scope, family in itertools.product(
        species,
        [f"bilstm-attention-{k}" for k in range(models)],
        ("permuted", "removed"),
        ("macro_f1", *classes),
        families,
    ):
        drop = rng.gamma(0.6, 0.04) - 0.01
        half = rng.uniform(0.01, 0.04)
        rows.append(
            (name, "shared", model, how, family, scope, drop, drop - half, drop + half, 0.1, 50)
        )
    columns = columns_of(
        "species features model how family scope drop ci_low ci_high p_value folds"
    )
    return pd.DataFrame(rows, columns=columns)


def agreement_table(species=BOTH, models=1):
    rng = np.random.default_rng(2)
    whats = ["attention and permuted", "attention and removed", "permuted and removed"]
    pairs = [(what, name) for what in [*whats, "attention between seeds"] for name in species]
    if len(species) == 2:
        pairs += [
            (f"mouse and human, {what}", "both") for what in ("permuted", "removed", "attention")
        ]
    rows = []
    for model, (what, name) in itertools.product(range(models), pairs):
        rho = rng.uniform(-0.5, 0.8)
        verdict = VERDICT if rho < 0.5 else f"attention explains the model {WEAK}"
        interval = (rho, max(rho - 0.4, -1), min(rho + 0.3, 1))
        rows.append((what, name, f"bilstm-attention-{model}", *interval, 6, 50, verdict))
    columns = columns_of("what species model spearman ci_low ci_high families folds verdict")
    return pd.DataFrame(rows, columns=columns)


def conserved_table(features=None, groups=FOUR, level="subclass"):
    rng = np.random.default_rng(3)
    features = features or load_layout("shared").features
    rows = []
    for group, feature in itertools.product(groups, features):
        mouse, human = np.clip(0.5 + rng.normal(0, 0.2, 2), 0.02, 0.98)
        if rng.random() < 0.5:
            human = mouse
        half = rng.uniform(0.02, 0.12, 2)
        row = {"level": level, "group": group, "feature": feature.name, "family": feature.family}
        row["unit"] = feature.unit
        signs = []
        for name, auc, each in (("mouse", mouse, half[0]), ("human", human, half[1])):
            row |= {f"{name}_auc": auc, f"{name}_low": auc - each, f"{name}_high": auc + each}
            row[f"{name}_cells"] = 50
            signs.append(np.sign(auc - 0.5) if abs(auc - 0.5) > each else 0)
        if 0 not in signs:
            verdict = "same" if signs[0] == signs[1] else "opposite"
        else:
            verdict = "mouse only" if signs[0] else "human only" if signs[1] else "neither"
        rows.append(row | {"verdict": verdict})
    return pd.DataFrame(rows)


def separation_table(classes=FOUR, species=BOTH):
    rng = np.random.default_rng(4)
    rows = []
    for name in species:
        pairs = [("silhouette", "all", "all"), ("d_prime", "all", "all")]
        pairs += [("silhouette", group, "rest") for group in classes]
        pairs += [("d_prime", *pair) for pair in itertools.combinations(classes, 2)]
        for metric, a, b in pairs:
            value = rng.normal(0.1, 0.15) if metric == "silhouette" else rng.gamma(4, 0.6)
            p = 0.001 if value > 0 and rng.random() < 0.8 else 0.234
            rows.append((name, "shared", metric, a, b, value, p, 999, 100, 20))
    columns = columns_of("species features metric a b value p_value permutations cells components")
    return pd.DataFrame(rows, columns=columns)


def map_table(classes=FOUR, species=BOTH, cells=(900, 200)):
    rng = np.random.default_rng(5)
    parts = []
    for name, number in zip(species, cells, strict=False):
        group = rng.integers(0, len(classes), number)
        angle = 2 * np.pi * group / len(classes)
        middle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 5
        x, y = (middle + rng.normal(0, 1.4, (number, 2))).T
        parts.append(
            pd.DataFrame(
                {
                    "cell_id": [f"{name}-{k}" for k in range(number)],
                    "species": name,
                    "subclass": np.array(classes)[group],
                    "x": x,
                    "y": y,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def loadings_table(layout="shared", species=BOTH, features=None):
    rng = np.random.default_rng(6)
    rows = []
    features = features or load_layout(layout).features
    for name, family in itertools.product(species, dict.fromkeys(f.family for f in features)):
        own = [feature for feature in features if feature.family == family]
        trace = len(own) > 20
        n_components = min(int(rng.integers(2, 8)), len(own))
        x = np.linspace(0, 1, len(own))
        mean = -60 + 70 * np.exp(-(((x * 3) % 1 - 0.3) ** 2) / 0.02) if trace else 50 * x
        for component in range(n_components):
            loading = np.sin(6 * x + component) + rng.normal(0, 0.1, len(own))
            loading[np.abs(loading) < 0.5] = 0
            loading /= float(np.linalg.norm(loading)) or 1.0
            rows += [
                (
                    *(name, layout, family, component, feature.name, position, feature.unit),
                    *(loading[position], mean[position], 0.5 / (component + 2)),
                )
                for position, feature in enumerate(own)
            ]
    columns = "species features family component feature position unit loading mean variance"
    return pd.DataFrame(rows, columns=columns_of(columns))


def examples_table(layout="shared", species=BOTH, classes=FOUR, features=None):
    rng = np.random.default_rng(7)
    rows = []
    features = features or load_layout(layout).features
    for name, (number, group) in itertools.product(species, enumerate(classes)):
        for family in dict.fromkeys(feature.family for feature in features):
            own = [feature for feature in features if feature.family == family]
            x = np.linspace(0, 1, len(own))
            peak = np.exp(-(((x * 3) % 1 - 0.2 - 0.05 * number) ** 2) / 0.02)
            middle = (
                -60 + 70 * peak + rng.normal(0, 1)
                if len(own) > 20
                else rng.normal(30, 10, len(own))
            )
            example = middle + rng.normal(0, 3, len(own))
            rows += [
                (
                    *(name, layout, group, family, feature.name, k, feature.unit, example[k]),
                    *(middle[k] - 8, middle[k], middle[k] + 9, f"{name}-{group}"),
                )
                for k, feature in enumerate(own)
            ]
    columns = "species features subclass family feature position unit example low median high"
    return pd.DataFrame(rows, columns=[*columns_of(columns), "cell_id"])


def texts(figure: Figure) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Every text that is drawn, with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    drawn: dict[int, Text] = {}

    def noted(text: Text, *args: Any, **kwargs: Any) -> None:
        # Which texts are drawn and where is asked here; their pixels would take half of the time.
        drawn[id(text)] = text

    with mock.patch.object(Text, "draw", noted):
        canvas.draw()
    found = []
    for text in drawn.values():
        if text.get_visible() and text.get_text().strip():
            box = Text.get_window_extent(text, canvas.get_renderer())
            found.append((text.get_text(), (box.x0, box.y0, box.x1, box.y1)))
    return found


def collisions(figure: Figure) -> list[str]:
    """Texts over one another or over the edge of the figure."""
    boxes = texts(figure)
    width, height = figure.get_size_inches() * figure.dpi
    wrong = [
        f"'{name}' is cut off"
        for name, (x0, y0, x1, y1) in boxes
        if x0 < -1 or y0 < -1 or x1 > width + 1 or y1 > height + 1
    ]
    for (name, a), (other, b) in itertools.combinations(boxes, 2):
        across = min(a[2], b[2]) - max(a[0], b[0])
        down = min(a[3], b[3]) - max(a[1], b[1])
        # Boxes hold room for letters that reach below the line: a pixel or two is no collision.
        if across > 1 and down > 2:
            wrong.append(f"'{name}' lies over '{other}'")
    return wrong


def traces(families=TRACES[-3:], positions=24):
    """Features of a layout of traces, shorter than real ones."""
    return [Feature(f"{name}[{k}]", name, "mV") for name in families for k in range(positions)]


TYPES = [f"{subclass} Gene{k} Islr" for subclass in FIVE for k in range(3)]
ONE = ("human",)
TWO = ("Sst", "Vip")
CASES: dict[str, Callable[[float], Figure]] = {
    "attention, 12 families, 5 classes": lambda w: attention_figure(
        attention_table(TRACES, classes=FIVE), w
    ),
    "attention, long names, 1 species, 2 models": lambda w: attention_figure(
        attention_table(LONG, ONE, TWO, models=2), w
    ),
    "attention, 2 families": lambda w: attention_figure(attention_table(SHARED[:2]), w),
    "importance, 10 families": lambda w: importance_figure(importance_table(TEN), w),
    "importance, long names, 1 species, 2 models": lambda w: importance_figure(
        importance_table(LONG, ONE, models=2), w
    ),
    "agreement, 12 families": lambda w: agreement_figure(
        importance_table(TRACES), attention_table(TRACES), agreement_table(), w
    ),
    "agreement, long names, 1 species": lambda w: agreement_figure(
        importance_table(LONG, ONE), attention_table(LONG, ONE), agreement_table(ONE), w
    ),
    "conserved, 32 features": lambda w: conserved_figure(conserved_table(), w),
    "conserved, 14 types": lambda w: conserved_figure(
        conserved_table(load_layout("shared").features[:12], TYPES[:14]), w
    ),
    "separation, 5 classes": lambda w: separation_figure(separation_table(FIVE), w),
    "separation, 2 classes, 1 species": lambda w: separation_figure(separation_table(TWO, ONE), w),
    "map": lambda w: map_figure(map_table(FIVE), w),
    "map, 1 species": lambda w: map_figure(map_table(TWO, ONE, (100,)), w),
    "loadings, 32 features": lambda w: loadings_figure(loadings_table(), w),
    "loadings, traces": lambda w: loadings_figure(loadings_table(features=traces()), w),
    "loadings, long names, 1 species": lambda w: loadings_figure(
        loadings_table(species=ONE, features=traces(LONG[:3])), w
    ),
    "examples, 32 features": lambda w: examples_figure(examples_table(), w),
    "examples, traces, 5 classes": lambda w: examples_figure(
        examples_table(species=ONE, classes=FIVE, features=traces()), w
    ),
    "examples, long names, 2 classes": lambda w: examples_figure(
        examples_table(classes=TWO, features=traces(LONG[:3])), w
    ),
}
FULL = load_layout("full").features
LARGE: dict[str, Callable[[float], Figure]] = {
    "conserved": lambda w: conserved_figure(conserved_table(FULL, FIVE), w),
    "loadings": lambda w: loadings_figure(loadings_table(features=FULL), w),
    "examples": lambda w: examples_figure(examples_table(classes=FIVE, features=FULL), w),
}


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("case", CASES)
def test_no_text_lies_over_another_or_is_cut_off(case, width):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert collisions(CASES[case](width)) == []


@pytest.mark.parametrize("case", LARGE)
def test_93_features_fit_on_a_phone(case):
    assert collisions(LARGE[case](NARROW)) == []


def test_overlaps_would_be_found():
    figure = Figure(figsize=(2, 1))
    figure.text(0.3, 0.5, "one word")
    figure.text(0.4, 0.5, "another")
    figure.text(0.95, 0.1, "beyond")
    assert len(collisions(figure)) == 2


def words(figure: Figure) -> str:
    """Everything that is written in a figure."""
    return " ".join(text for text, _ in texts(figure)).replace("\n", " ")


def without(table: pd.DataFrame, columns: list[str], share: float = 0.3) -> pd.DataFrame:
    """A table in which some values are missing."""
    table = table.copy()
    gaps = np.random.default_rng(8).random(len(table)) < share
    table.loc[gaps, columns] = np.nan
    return table


def quiet(figure: Figure) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return collisions(figure)


FEW = load_layout("shared").features[:8]


def test_missing_values_leave_gaps_not_errors():
    bounds = ["drop", "ci_low", "ci_high"]
    importance = without(importance_table(), bounds)
    attention = without(attention_table(), ["weight", "sd"])
    agreement = without(agreement_table(), ["spearman", "ci_low", "ci_high"])
    areas = [f"{name}_{what}" for name in BOTH for what in ("auc", "low", "high")]
    figures = [
        importance_figure(importance, NARROW),
        attention_figure(attention, NARROW),
        agreement_figure(importance, attention, agreement, NARROW),
        conserved_figure(without(conserved_table(FEW), areas), NARROW),
        separation_figure(without(separation_table(), ["value"]), NARROW),
        separation_figure(without(separation_table(), ["p_value"]), NARROW),
        map_figure(without(map_table(), ["x"]), NARROW),
        loadings_figure(without(loadings_table(features=FEW), ["loading"]), NARROW),
        loadings_figure(
            without(loadings_table(features=traces(TRACES[:2])), ["loading", "mean"]), NARROW
        ),
        examples_figure(without(examples_table(features=FEW), ["example", "low", "high"]), NARROW),
        examples_figure(
            without(examples_table(features=traces(TRACES[:2])), ["example", "low"]), NARROW
        ),
    ]
    assert [quiet(figure) for figure in figures] == [[]] * len(figures)


def test_a_class_or_family_that_one_species_lacks_is_left_out_there():
    def lacks(table: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
        return table[(table["species"] == "mouse") | (table[column] != name)]

    last = TRACES[1]
    separation = separation_table()
    figures = [
        attention_figure(lacks(attention_table(), "subclass", "Vip")),
        attention_figure(lacks(attention_table(), "family", SHARED[0])),
        importance_figure(lacks(importance_table(), "family", SHARED[0])),
        separation_figure(lacks(lacks(separation, "a", "Vip"), "b", "Vip")),
        map_figure(lacks(map_table(), "subclass", "Vip")),
        loadings_figure(lacks(loadings_table(features=FEW), "family", SHARED[0])),
        loadings_figure(lacks(loadings_table(features=traces(TRACES[:2])), "family", last)),
        examples_figure(lacks(examples_table(features=FEW), "subclass", "Vip")),
        examples_figure(lacks(examples_table(features=traces(TRACES[:2])), "subclass", "Vip")),
        examples_figure(lacks(examples_table(features=traces(TRACES[:2])), "family", last)),
    ]
    assert [quiet(figure) for figure in figures] == [[]] * len(figures)


def test_a_figure_of_nothing_says_so():
    figures = [
        attention_figure(attention_table().iloc[:0], NARROW),
        importance_figure(importance_table().iloc[:0], NARROW),
        agreement_figure(
            importance_table().iloc[:0],
            attention_table().iloc[:0],
            agreement_table().iloc[:0],
            NARROW,
        ),
        conserved_figure(conserved_table(), NARROW, "homologous type"),
        separation_figure(separation_table().iloc[:0], NARROW),
        map_figure(map_table().iloc[:0], NARROW),
        loadings_figure(loadings_table().iloc[:0], NARROW),
        examples_figure(examples_table().iloc[:0], NARROW),
    ]
    assert all(len(words(figure)) > 10 and not collisions(figure) for figure in figures)


def test_agreement_gives_the_verdict_where_the_points_are():
    importance, attention = importance_table(species=ONE), attention_table(species=ONE)
    table = agreement_table(ONE)
    table["verdict"] = "attention explains the model"
    table.loc[table["what"] == "attention and removed", "verdict"] = "it does not"
    table["spearman"] = 0.123
    written = words(agreement_figure(importance, attention, table))
    assert "human, permuted: ρ\u00a0=\u00a00.12 attention explains the model" in written
    assert "human, removed: ρ\u00a0=\u00a00.12 it does not" in written
    assert "1 subthreshold" in written


def test_what_all_verdicts_remark_is_said_once_below():
    importance, attention = importance_table().iloc[:0], attention_table().iloc[:0]
    written = words(agreement_figure(importance, attention, agreement_table()))
    assert written.count("weak evidence: 6 families") == 1
    table = agreement_table()
    table.loc[0, ["verdict", "families"]] = "they agree", 12
    written = words(agreement_figure(importance, attention, table))
    assert written.count("weak evidence: 6 families") == len(table) - 1


def test_agreement_without_attention_shows_what_is_left():
    table = agreement_table()
    table = table[~table["what"].str.contains("attention")]
    figure = agreement_figure(importance_table(), attention_table().iloc[:0], table, NARROW)
    assert "mouse and human, removed" in words(figure)
    assert collisions(figure) == []


def test_conserved_of_many_features_says_that_it_shows_the_best():
    features = load_layout("gouwens").features[: MOST_FEATURES + 30]
    table = conserved_table(features, ("Sst",))
    table["mouse_auc"] = table["human_auc"] = 0.5
    table.loc[table["feature"] == features[7].name, "human_auc"] = 0.1
    written = words(conserved_figure(table))
    assert f"The {MOST_FEATURES} of {MOST_FEATURES + 30} features" in written
    assert "first ap v[7]" in written


def test_classes_come_in_the_order_of_the_taxonomy():
    table = attention_table(classes=("Vip", "Lamp5", "Sst"), species=ONE)
    axes = attention_figure(table).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["all", "Lamp5", "Sst", "Vip"]


def test_the_cells_of_a_large_map_are_no_vectors(tmp_path):
    save_figure(map_figure(map_table(cells=(4000, 500))), tmp_path / "map.svg")
    assert (tmp_path / "map.svg").read_text().count("<use") < 300


@pytest.mark.parametrize("figure", [examples_figure, loadings_figure])
def test_short_times_are_in_milliseconds(figure):
    features = [Feature(f"spiking_width[{k}]", "spiking_width", "s") for k in range(24)]
    table = examples_table if figure is examples_figure else loadings_table
    values = table(features=features)
    for name in {"example", "low", "median", "high", "mean"} & set(values):
        values[name] = 0.0006 + 1e-6 * values[name]
    drawn = figure(values, NARROW)
    assert "spiking width (ms)" in words(drawn)
    assert collisions(drawn) == []
