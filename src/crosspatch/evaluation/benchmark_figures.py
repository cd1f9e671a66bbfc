"""Figures of a benchmark's results.

Each is made from tables of a result folder, which its parameters are called after, and takes a
width in inches: panels are laid out in as many columns as fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.cohorts.taxonomy import colour_of, ordered
from crosspatch.drawing.labels import width_of, wrapped
from crosspatch.drawing.panels import (
    LEAST,
    columns_for,
    ends_of,
    grid,
    in_rows,
    intervals,
    legend_of_all,
    name_rows,
    parts_of,
    stacked,
)
from crosspatch.drawing.style import (
    ACCENT,
    GREY,
    SECOND,
    SMALL,
    TEXT,
    WIDE,
    ZERO,
    new_figure,
    plain,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: More pairs than this are not drawn one by one, but each model against the best one.
MOST_PAIRS = 15

_KEYS = ["task", "features", "protocol"]


@styled
def scores_figure(summary: pd.DataFrame, width: float = WIDE) -> Figure:
    """Macro-F1 of every model, mean and SD over runs, beside the published mean."""
    parts = parts_of(summary, _KEYS)
    figure, panels = stacked([len(part) for _, part in parts], width)
    for axes, (title, part) in zip(panels, parts, strict=True):
        part = part.sort_values("macro_f1_mean")
        rows, sd = range(len(part)), part["macro_f1_sd"].to_numpy(dtype=float)
        ours, label = part["macro_f1_mean"], "here, mean ± SD over runs"
        intervals(axes, ours, rows, "o", ACCENT, label, xerr=sd)
        theirs = np.asarray(part.get("published_macro_f1", [np.nan]), dtype=float)
        if np.isfinite(theirs).any():
            label = "published, on other cells and folds"
            intervals(axes, theirs, rows, "D", SECOND, label, fill="white")
        name_rows(axes, part["model"].astype(str), title)
        axes.set_xlabel("macro-F1")
    legend_of_all(figure, panels)
    return figure


def best_model(comparisons: pd.DataFrame) -> str:
    """The model with the highest mean macro-F1 in the comparisons of one task."""
    gained = comparisons.groupby("model_a", sort=False)["delta_macro_f1"].sum()
    lost = comparisons.groupby("model_b", sort=False)["delta_macro_f1"].sum()
    return str(gained.sub(lost, fill_value=0).idxmax())


def pairs_with(comparisons: pd.DataFrame, model: str) -> pd.DataFrame:
    """The comparisons in which a model takes part."""
    return comparisons[(comparisons["model_a"] == model) | (comparisons["model_b"] == model)]


def against(comparisons: pd.DataFrame, model: str) -> pd.DataFrame:
    """Every other model minus this one: the rows that have it, turned round where need be."""
    ours = pairs_with(comparisons, model)
    other = ours["model_a"].where(ours["model_b"] == model, ours["model_b"])
    sign = np.where(ours["model_b"] == model, 1.0, -1.0)
    ends = np.sort(ours[["ci_low", "ci_high"]].to_numpy() * sign[:, None], axis=1)
    return pd.DataFrame(
        {
            "model": other.to_numpy(),
            "delta_macro_f1": ours["delta_macro_f1"].to_numpy() * sign,
            "ci_low": ends[:, 0],
            "ci_high": ends[:, 1],
        }
    )


@styled
def differences_figure(comparisons: pd.DataFrame, width: float = WIDE) -> Figure:
    """Paired differences in macro-F1 with 95 % intervals.

    Of more than `MOST_PAIRS` pairs of a task, only those with its best model are drawn.
    """
    panels = []
    for title, part in parts_of(comparisons, _KEYS):
        if len(part) > MOST_PAIRS:
            best = best_model(part)
            shown = against(part, best)
            panels.append((f"{title}: each model minus {best}", shown["model"], shown))
        else:
            panels.append((title, part["model_a"] + " − " + part["model_b"], part))
    return _forest(panels, "difference in macro-F1", width)


@styled
def gain_figure(
    comparisons: pd.DataFrame, with_mouse: Iterable[str], width: float = WIDE
) -> Figure:
    """What models that learn from mouse gain over others in one task, with 95 % intervals."""
    theirs = list(with_mouse)
    panels = []
    for model in theirs:
        rows = against(comparisons, model)
        rows = rows[~rows["model"].isin(theirs)]
        low, high = -rows["ci_high"], -rows["ci_low"]
        gain = rows.assign(delta_macro_f1=-rows["delta_macro_f1"], ci_low=low, ci_high=high)
        if len(gain):
            panels.append((f"{model} minus", gain["model"], gain))
    return _forest(panels, "gain in macro-F1 from mouse", width)


def _forest(
    panels: Sequence[tuple[str, Iterable[str], pd.DataFrame]], what: str, width: float
) -> Figure:
    """Differences with their intervals; filled where the interval has no zero in it."""
    labels = [[wrapped(str(name), 0.45 * width) for name in names] for _, names, _ in panels]
    lines = [line for part in labels for label in part for line in label.split("\n")]
    longest = max(map(width_of, lines), default=0.0)
    titles = [wrapped(title, width - longest - 0.5, bold=True) for title, _, _ in panels]
    tall = [
        sum(label.count("\n") + 1 for label in part) + title.count("\n")
        for title, part in zip(titles, labels, strict=True)
    ]
    figure, shown = stacked(tall, width)
    for axes, title, (*_, part), names in zip(shown, titles, panels, labels, strict=True):
        _draw_differences(axes, part)
        name_rows(axes, names, title)
        axes.invert_yaxis()
        axes.set_xlabel(what)
    legend_of_all(figure, shown)
    return figure


def _draw_differences(axes: Axes, part: pd.DataFrame) -> None:
    axes.axvline(0, color=ZERO, linewidth=1, zorder=0)
    rows = pd.Series(range(len(part)), index=part.index)
    clear = (part["ci_low"] > 0) | (part["ci_high"] < 0)
    for chosen, colour, fill, label in (
        (clear, ACCENT, ACCENT, "interval without zero"),
        (~clear, GREY, "white", "interval with zero"),
    ):
        if chosen.any():
            delta, ends = part.loc[chosen, "delta_macro_f1"], ends_of(part[chosen])
            intervals(axes, delta, rows[chosen], "o", colour, label, xerr=ends, fill=fill)


@styled
def confusion_figure(confusion: pd.DataFrame, width: float = WIDE) -> Figure:
    """Where the cells of a subclass end up: shares of its row, and cells per run."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("shares", ["white", ACCENT])
    parts = parts_of(confusion, [*_KEYS, "model"])
    figure, panels = grid(len(parts), width, height=2.75)
    columns = columns_for(len(parts), width)
    for number, (axes, (title, part)) in enumerate(zip(panels, parts, strict=True)):
        names = ordered([*part["true"], *part["predicted"]])
        counts = part.pivot_table(index="true", columns="predicted", values="cells", aggfunc="sum")
        counts = counts.reindex(index=names, columns=names).fillna(0) / part["run"].nunique()
        shares = counts.div(counts.sum(axis=1).where(lambda total: total > 0), axis=0).fillna(0)
        tested = counts.sum(axis=1) > 0  # a dataset held out may not have every class
        axes.imshow(shares, cmap=shades, vmin=0, vmax=1)
        for (i, j), share in np.ndenumerate(shares.to_numpy(dtype=float)):
            text = f"{share:.2f}\n{counts.to_numpy()[i, j]:,.0f}" if tested.iloc[i] else ""
            colour = "white" if share > 0.6 else "0.15"
            axes.text(j, i, text, ha="center", va="center", fontsize=SMALL, color=colour)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=TEXT, length=0, pad=10)
        axes.spines[:].set_visible(False)
        _swatches(axes, names)
        axes.set_title(wrapped(title, width / columns - 0.2))
        axes.set_xlabel("predicted")
        if number % columns == 0:
            axes.set_ylabel("true")
    return figure


def _swatches(axes: Axes, names: Sequence[str]) -> None:
    """Squares in the colours of the subclasses, between the axes and their names."""
    from matplotlib.transforms import offset_copy

    n, figure = len(names), axes.get_figure(root=True)
    left = offset_copy(axes.transAxes, figure, x=-5, units="points")
    below = offset_copy(axes.transAxes, figure, y=-5, units="points")
    for k, name in enumerate(names):
        for x, y, where in ((0, 1 - (k + 0.5) / n, left), ((k + 0.5) / n, 0, below)):
            colour = colour_of(name)
            axes.plot(x, y, "s", markersize=5, color=colour, clip_on=False, transform=where)


@styled
def class_f1_figure(summary: pd.DataFrame, width: float = WIDE) -> Figure:
    """F1 of each subclass by model, mean and SD over runs."""
    room = max(map(width_of, summary["model"].astype(str)), default=1.0)
    columns = max(1, int((width - room - 0.2) // 1.0))
    blocks = [block for part in parts_of(summary, _KEYS) for block in _f1_blocks(*part, columns)]
    heights = [0.17 * len(part) + 0.62 + 0.22 * bool(title) for title, part, _ in blocks]
    figure = new_figure(width, sum(heights), h_pad=0.02)
    inner = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
    across = max((len(names) for _, _, names in blocks), default=1)
    values = summary[[f"f1_{name}_mean" for name in f1_classes(summary)]].to_numpy(dtype=float)
    low = np.floor(max(np.nanmin(values, initial=1.0) - 0.1, 0) * 10) / 10
    for place, (title, part, names) in zip(inner, blocks, strict=True):
        if title:
            place.suptitle(title, fontweight="bold")
        panels = place.subplots(1, across, sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=False):
            _draw_f1(axes, part, name)
            axes.set(xlim=(low, 1.04), xticks=[low, round((low + 1) / 2, 2), 1])
        for axes in panels[len(names) :]:
            axes.set_axis_off()
    return figure


def _f1_blocks(
    title: str, part: pd.DataFrame, columns: int
) -> list[tuple[str, pd.DataFrame, list[str]]]:
    """Classes that have an F1, in rows of so many; the first row has the title."""
    names = [n for n in ordered(f1_classes(part)) if part[f"f1_{n}_mean"].notna().any()]
    rows = in_rows(names, columns)
    return [("" if number else title, part, row) for number, row in enumerate(rows)]


def _draw_f1(axes: Axes, part: pd.DataFrame, name: str) -> None:
    axes.errorbar(
        part[f"f1_{name}_mean"],
        range(len(part)),
        xerr=part[f"f1_{name}_sd"].to_numpy(float) if f"f1_{name}_sd" in part else None,
        fmt="o",
        color=colour_of(name),
        ecolor="0.35",
        markeredgecolor="0.2",
        markeredgewidth=0.6,
        markersize=5,
        linewidth=1,
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(title=name, xlabel="F1")
    name_rows(axes, part["model"].astype(str))
    axes.invert_yaxis()


def f1_classes(summary: pd.DataFrame) -> list[str]:
    """Classes whose F1 the table ``summary`` has."""
    found = [re.fullmatch(r"f1_(.+)_mean", str(column)) for column in summary]
    return [match[1] for match in found if match]


@styled
def reliability_figure(reliability: pd.DataFrame, width: float = WIDE) -> Figure:
    """Accuracy against confidence of the predicted class, one panel per task and model."""
    parts = parts_of(reliability, [*_KEYS, "model"])
    figure, panels = grid(len(parts), width, height=2.5)
    for axes, (title, part) in zip(panels, parts, strict=True):
        axes.plot([0, 1], [0, 1], color=ZERO, linewidth=1, linestyle="--", label="ideal")
        bins = (part["bin_high"] - part["bin_low"]).to_numpy()
        share = (part["cells"] / part["cells"].sum()).to_numpy()
        axes.bar(part["bin_low"], share, bins, align="edge", color="0.85", label="share of cells")
        axes.plot(part["confidence"], part["accuracy"], ".-", color=ACCENT, label="accuracy")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=title)
        plain(axes, xlabel="confidence", ylabel="accuracy, share")
    legend_of_all(figure, panels)
    return figure


@styled
def coverage_figure(coverage: pd.DataFrame, width: float = WIDE) -> Figure:
    """Share of cells whose subclass is in their prediction set, and how large the sets are."""
    parts = parts_of(coverage, [*_KEYS, "model"])
    names = ordered(coverage["class"])
    beside = width >= 2 * LEAST
    rows = len(parts) if beside else 2 * len(parts)
    figure = new_figure(width, rows * (0.24 * len(names) + 0.75) + 0.4)
    panels = figure.subplots(rows, 2 if beside else 1, squeeze=False).ravel()
    largest = float((coverage["set_size_mean"] + coverage["set_size_sd"].fillna(0)).max())
    for number, (title, part) in enumerate(parts):
        covered, size = panels[2 * number : 2 * number + 2]
        _draw_sets(covered, part, names, "coverage")
        covered.axvline(0.9, color=ZERO, linewidth=1, linestyle="--", zorder=0)
        covered.set(title=title, xlabel="coverage", xlim=(None, 1.01))
        _draw_sets(size, part, names, "set_size")
        size.set(title=title, xlabel="classes in the set", xlim=(0, largest * 1.08))
    legend_of_all(figure, panels)
    return figure


def _draw_sets(axes: Axes, part: pd.DataFrame, names: Sequence[str], score: str) -> None:
    names = [name for name in names if name in set(part["class"])]
    looks = (("o", ACCENT, -0.14), ("s", "white", 0.14))
    for kind, (marker, fill, shift) in zip(dict.fromkeys(part["sets"]), looks, strict=False):
        of = part[part["sets"] == kind].set_index("class").reindex(names)
        rows, sd = np.arange(len(names)) + shift, of[f"{score}_sd"].to_numpy(dtype=float)
        mean, label = of[f"{score}_mean"], f"sets {kind}"
        intervals(axes, mean, rows, marker, ACCENT, label, xerr=sd, fill=fill)
    name_rows(axes, names)
    axes.invert_yaxis()
    for text in axes.get_yticklabels():
        if text.get_text() != "all":
            colour = colour_of(text.get_text())
            text.set_bbox({"facecolor": colour, "alpha": 0.45, "pad": 1, "lw": 0})


#: Figures by name, and the table of a result that each is drawn from.
FIGURES: dict[str, tuple[Callable[[pd.DataFrame], Figure], str]] = {
    "scores": (scores_figure, "summary"),
    "differences": (differences_figure, "comparisons"),
    "confusion": (confusion_figure, "confusion"),
    "classes": (class_f1_figure, "summary"),
    "reliability": (reliability_figure, "reliability"),
    "coverage": (coverage_figure, "coverage"),
}
