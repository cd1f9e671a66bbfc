"""Figures of a benchmark's results; every one is made from tables of a result folder.

Each takes a width in inches: panels are laid out in as many columns as fit, text stays 8 points.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crosspatch.reporting.labels import LINE, TEXT, colour_of, ordered, width_of, wrapped
from crosspatch.reporting.style import ACCENT, GREY, SECOND, SPECIES_COLOURS, THIRD, WIDE, plain
from crosspatch.species import HUMAN, MOUSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: More pairs than this are not drawn one by one, but each model against the best one.
MOST_PAIRS = 15

# The smallest panel that can be read, inches.
_PANEL = 2.3


def scores_figure(summary: pd.DataFrame, width: float = WIDE) -> Figure:
    """Macro-F1 of every model, mean and SD over runs, beside the published mean.

    Parameters
    ----------
    summary : DataFrame
        From `crosspatch.evaluation.results.summarize_runs`.
    width : float
        Inches.
    """
    parts = _parts(summary, ["task", "features", "protocol"])
    figure, panels = _stacked([len(part) for _, part in parts], width)
    for axes, (title, part) in zip(panels, parts, strict=True):
        part = part.sort_values("macro_f1_mean")
        places = range(len(part))
        axes.errorbar(
            part["macro_f1_mean"],
            places,
            xerr=part["macro_f1_sd"].to_numpy(dtype=float),
            fmt="o",
            color=ACCENT,
            markersize=5,
            linewidth=1.2,
            label="here, mean ± SD over runs",
        )
        theirs = part.get("published_macro_f1", [np.nan])
        if np.isfinite(np.asarray(theirs, dtype=float)).any():
            label = "published, on other cells and folds"
            look: dict[str, Any] = {"color": SECOND, "markerfacecolor": "white", "markersize": 5}
            axes.errorbar(theirs, places, fmt="D", label=label, **look)
        _rows(axes, part["model"].astype(str), title)
        axes.set_xlabel("macro-F1", fontsize=TEXT)
    _legend_of_all(figure, panels, width)
    return figure


def best_model(comparisons: pd.DataFrame) -> str:
    """The model with the highest mean macro-F1 in the comparisons of one task."""
    lead: dict[str, float] = {}
    for _, row in comparisons.iterrows():
        lead[row["model_a"]] = lead.get(row["model_a"], 0.0) + row["delta_macro_f1"]
        lead[row["model_b"]] = lead.get(row["model_b"], 0.0) - row["delta_macro_f1"]
    return max(lead, key=lambda name: lead[name])


def against(comparisons: pd.DataFrame, model: str) -> pd.DataFrame:
    """Every other model minus this one: the rows that have it, turned round where need be."""
    ours = comparisons[(comparisons["model_a"] == model) | (comparisons["model_b"] == model)]
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


def differences_figure(comparisons: pd.DataFrame, width: float = WIDE) -> Figure:
    """Paired differences in macro-F1 with 95 % intervals.

    Of more than `MOST_PAIRS` pairs of a task, only those with its best model are drawn.

    Parameters
    ----------
    comparisons : DataFrame
        From `crosspatch.evaluation.results.compare`.
    width : float
        Inches.
    """
    panels = []
    for title, part in _parts(comparisons, ["task", "features", "protocol"]):
        if len(part) > MOST_PAIRS:
            best = best_model(part)
            shown = against(part, best)
            panels.append((f"{title}: each model minus {best}", shown["model"], shown))
        else:
            pairs = part["model_a"] + " − " + part["model_b"]
            panels.append((title, pairs, part))
    return _forest(panels, "difference in macro-F1", width)


def gain_figure(
    comparisons: pd.DataFrame, with_mouse: Iterable[str], width: float = WIDE
) -> Figure:
    """What models that learn from mouse gain over those that do not, with 95 % intervals.

    Parameters
    ----------
    comparisons : DataFrame
        From `crosspatch.evaluation.results.compare`, of one task.
    with_mouse : iterable of str
        Models that learn from mouse.
    width : float
        Inches.
    """
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


def confusion_figure(confusion: pd.DataFrame, width: float = WIDE) -> Figure:
    """Where the cells of a subclass end up: shares of its row, and cells a run.

    Parameters
    ----------
    confusion : DataFrame
        A row a model, run, fold, true and predicted class.
    width : float
        Inches.
    """
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("shares", ["white", ACCENT])
    parts = _parts(confusion, ["task", "features", "protocol", "model"])
    figure, panels = _grid(len(parts), width, height=2.75)
    columns = _columns(len(parts), width)
    for number, (axes, (title, part)) in enumerate(zip(panels, parts, strict=True)):
        names = ordered(part["true"])
        counts = part.pivot_table(index="true", columns="predicted", values="cells", aggfunc="sum")
        counts = counts.reindex(index=names, columns=names).fillna(0) / part["run"].nunique()
        shares = counts.div(counts.sum(axis=1).where(lambda total: total > 0), axis=0).fillna(0)
        axes.imshow(shares, cmap=shades, vmin=0, vmax=1)
        for i in range(len(names)):
            for j in range(len(names)):
                share = float(shares.to_numpy()[i, j])
                axes.text(
                    j,
                    i,
                    f"{share:.2f}\n{counts.to_numpy()[i, j]:,.0f}",
                    ha="center",
                    va="center",
                    fontsize=TEXT - 1,
                    color="white" if share > 0.6 else "0.15",
                )
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=TEXT, length=0, pad=10)
        axes.spines[:].set_visible(False)
        _swatches(axes, names)
        axes.set_title(wrapped(title, width / columns - 0.2), fontsize=TEXT)
        axes.set_xlabel("predicted", fontsize=TEXT)
        if number % columns == 0:
            axes.set_ylabel("true", fontsize=TEXT)
    return figure


def _swatches(axes: Axes, names: Sequence[str]) -> None:
    """Squares in the colours of the subclasses, between the axes and their names."""
    from matplotlib.transforms import offset_copy

    n, figure = len(names), axes.get_figure(root=True)
    left = offset_copy(axes.transAxes, figure, x=-5, units="points")
    below = offset_copy(axes.transAxes, figure, y=-5, units="points")
    for k, name in enumerate(names):
        look: dict[str, Any] = {
            "color": colour_of(name),
            "marker": "s",
            "markersize": 5,
            "clip_on": False,
        }
        axes.plot(0, 1 - (k + 0.5) / n, transform=left, **look)
        axes.plot((k + 0.5) / n, 0, transform=below, **look)


def class_f1_figure(summary: pd.DataFrame, width: float = WIDE) -> Figure:
    """F1 of each subclass by model, mean and SD over runs.

    Parameters
    ----------
    summary : DataFrame
        From `crosspatch.evaluation.results.summarize_runs`.
    width : float
        Inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    parts = _parts(summary, ["task", "features", "protocol"])
    room = max(map(width_of, summary["model"].astype(str)), default=1.0)
    columns = max(1, int((width - room - 0.2) // 1.0))
    blocks = []
    for title, part in parts:
        names = [str(c)[3:-5] for c in part if _is_f1(str(c))]
        names = [name for name in ordered(names) if part[f"f1_{name}_mean"].notna().any()]
        for first in range(0, len(names), columns):
            blocks.append((title if first == 0 else "", part, names[first : first + columns]))
    heights = [_block_height(len(part), titled=bool(title)) for title, part, _ in blocks]
    layout = ConstrainedLayoutEngine(h_pad=0.02)
    figure = Figure(figsize=(width, sum(heights)), layout=layout)
    inner = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
    across = max((len(names) for _, _, names in blocks), default=1)
    values = summary[[str(c) for c in summary if _is_f1(str(c))]].to_numpy(dtype=float)
    low = np.floor(max(np.nanmin(values, initial=1.0) - 0.1, 0) * 10) / 10
    for place, (title, part, names) in zip(inner, blocks, strict=True):
        if title:
            place.suptitle(title, fontsize=TEXT, fontweight="bold")
        panels = place.subplots(1, across, sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=False):
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
            axes.set_xlim(low, 1.04)
            axes.set_xticks([low, round((low + 1) / 2, 2), 1], minor=False)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_title(name, fontsize=TEXT)
            axes.set_xlabel("F1", fontsize=TEXT)
            _rows(axes, part["model"].astype(str))
            axes.invert_yaxis()
        for axes in panels[len(names) :]:
            axes.set_axis_off()
    return figure


def _is_f1(column: str) -> bool:
    return column.startswith("f1_") and column.endswith("_mean")


def _block_height(rows: int, *, titled: bool) -> float:
    return 0.17 * rows + 0.62 + 0.22 * titled


def reliability_figure(reliability: pd.DataFrame, width: float = WIDE) -> Figure:
    """Accuracy against confidence of the predicted class, a panel a task and model.

    Parameters
    ----------
    reliability : DataFrame
        From `crosspatch.evaluation.uncertainty.reliability_table`.
    width : float
        Inches.
    """
    parts = _parts(reliability, ["task", "features", "protocol", "model"])
    figure, panels = _grid(len(parts), width, height=2.5)
    for axes, (title, part) in zip(panels, parts, strict=True):
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="ideal")
        bins = (part["bin_high"] - part["bin_low"]).to_numpy()
        share = (part["cells"] / part["cells"].sum()).to_numpy()
        axes.bar(part["bin_low"], share, bins, align="edge", color="0.85", label="share of cells")
        axes.plot(
            part["confidence"], part["accuracy"], "o-", color=ACCENT, markersize=4, label="accuracy"
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_title(title, fontsize=TEXT)
        axes.set_xlabel("confidence", fontsize=TEXT)
        axes.set_ylabel("accuracy, share", fontsize=TEXT)
        plain(axes)
    _legend_of_all(figure, panels, width)
    return figure


def coverage_figure(coverage: pd.DataFrame, width: float = WIDE) -> Figure:
    """Share of cells whose subclass is in their prediction set, and how large the sets are.

    Parameters
    ----------
    coverage : DataFrame
        From `crosspatch.evaluation.uncertainty.coverage_table`.
    width : float
        Inches.
    """
    from matplotlib.figure import Figure

    parts = _parts(coverage, ["task", "features", "protocol", "model"])
    names = ordered(coverage["class"])
    beside = width >= 2 * _PANEL
    heights = [0.24 * len(names) + 0.75] * len(parts)
    rows = len(parts) if beside else 2 * len(parts)
    figure = Figure(figsize=(width, sum(heights) * rows / len(parts) + 0.4), layout="constrained")
    grid = figure.subplots(rows, 2 if beside else 1, squeeze=False).ravel()
    largest = float((coverage["set_size_mean"] + coverage["set_size_sd"].fillna(0)).max())
    for number, (title, part) in enumerate(parts):
        for axes, score, what in (
            (grid[2 * number], "coverage", "coverage"),
            (grid[2 * number + 1], "set_size", "classes in the set"),
        ):
            _drawn_sets(axes, part, names, score)
            axes.set_title(title, fontsize=TEXT)
            axes.set_xlabel(what, fontsize=TEXT)
            if score == "coverage":
                axes.axvline(0.9, color="0.6", linewidth=1, linestyle="--", zorder=0)
                axes.set_xlim(None, 1.01)
            else:
                axes.set_xlim(0, largest * 1.08)
    _legend_of_all(figure, grid, width)
    return figure


def _drawn_sets(axes: Axes, part: pd.DataFrame, names: Sequence[str], score: str) -> None:
    names = [name for name in names if name in set(part["class"])]
    kinds = list(dict.fromkeys(part["sets"]))
    for kind, marker, fill, shift in zip(
        kinds, ("o", "s"), (ACCENT, "white"), (-0.14, 0.14), strict=False
    ):
        of = part[part["sets"] == kind].set_index("class").reindex(names)
        axes.errorbar(
            of[f"{score}_mean"],
            np.arange(len(names)) + shift,
            xerr=of[f"{score}_sd"].to_numpy(dtype=float),
            fmt=marker,
            color=ACCENT,
            markerfacecolor=fill,
            markersize=4.5,
            linewidth=1,
            label=f"sets {kind}",
        )
    _rows(axes, names)
    axes.invert_yaxis()
    shown = [label for label in axes.get_yticklabels() if label.get_text() != "all"]
    for label in shown:
        label.set_bbox({"facecolor": colour_of(label.get_text()), "alpha": 0.45, "pad": 1, "lw": 0})


def learning_curve_figure(
    summary: pd.DataFrame, gains: pd.DataFrame, width: float = WIDE, cut: str = "all"
) -> Figure:
    """Macro-F1 against the number of labelled human cells, with and without mouse.

    Parameters
    ----------
    summary, gains : DataFrame
        Of a result folder of kind ``learning-curve``.
    width : float
        Inches.
    cut : str
        Which test cells.
    """
    pairs = gains[["features", "model", "without"]].drop_duplicates()
    counts = _counts(summary)
    figure, panels = _grid(len(pairs), width, height=2.4, sharey=True)
    several = len(set(summary["features"])) > 1
    for axes, (features, model, without) in zip(panels, pairs.itertuples(index=False), strict=True):
        here = summary[(summary["features"] == features) & (summary["cut"] == cut)]
        for name, mouse, colour, marker in (
            (without, False, HUMAN.colour, "o"),
            (model, True, MOUSE.colour, "s"),
        ):
            part = here[(here["model"] == name) & (_flags(here["mouse"]) == mouse)]
            part = part.assign(place=part["cells_per_class"].astype(str).map(counts.index))
            part = part.sort_values("place")
            low, high = part["macro_f1_mean"] - part["ci_low"], part["ci_high"]
            axes.errorbar(
                part["place"] + (0.06 if mouse else -0.06),
                part["macro_f1_mean"],
                yerr=np.clip([low, high - part["macro_f1_mean"]], 0, None),
                fmt=f"{marker}-",
                color=colour,
                markersize=4,
                linewidth=1.2,
                label="mouse and human cells" if mouse else "human cells alone",
            )
        _by_count(axes, counts)
        title = f"{model}\nover {without}" + (f", {features}" if several else "")
        axes.set_title(wrapped(title, width / _columns(len(pairs), width) - 0.4), fontsize=TEXT)
        axes.set_ylabel("macro-F1", fontsize=TEXT)
    _legend_of_all(figure, panels, width)
    return figure


def gains_figure(gains: pd.DataFrame, width: float = WIDE) -> Figure:
    """Gain in macro-F1 from mouse against the number of labelled human cells, by cut.

    Parameters
    ----------
    gains : DataFrame
        Of a result folder of kind ``learning-curve``.
    width : float
        Inches.
    """
    several = len(set(gains["features"])) > 1
    who = gains["model"] + " over " + gains["without"]
    gains = gains.assign(who=who + ", " + gains["features"] if several else who)
    counts = _counts(gains)
    whos = list(dict.fromkeys(gains["who"]))
    cuts = ordered(gains["cut"])
    figure, panels = _grid(len(cuts), width, height=2.2, sharey=True)
    looks = [(ACCENT, "o"), (SECOND, "s"), (THIRD, "^"), ("#cc79a7", "D"), ("#56b4e9", "v")]
    looks += [("0.2", "P"), ("#e69f00", "X"), (GREY, "<")]
    for axes, cut in zip(panels, cuts, strict=True):
        axes.axhline(0, color="0.6", linewidth=1, zorder=0)
        for number, who in enumerate(whos):
            part = gains[(gains["cut"] == cut) & (gains["who"] == who)]
            delta = part["delta_macro_f1"]
            shift = (number - (len(whos) - 1) / 2) * min(0.14, 0.6 / len(whos))
            colour, marker = looks[number % len(looks)]
            axes.errorbar(
                part["cells_per_class"].astype(str).map(counts.index) + shift,
                delta,
                yerr=np.clip([delta - part["ci_low"], part["ci_high"] - delta], 0, None),
                fmt=marker,
                color=colour,
                markersize=4,
                linewidth=1,
                label=who,
            )
        _by_count(axes, counts)
        axes.set_title("all test cells" if cut == "all" else cut, fontsize=TEXT)
        axes.set_ylabel("gain in macro-F1", fontsize=TEXT)
    _legend_of_all(figure, panels, width)
    return figure


def _flags(column: pd.Series) -> pd.Series:
    return column.astype(str).str.lower() == "true"


def _counts(frame: pd.DataFrame) -> list[str]:
    """Labelled cells a class, from few to all."""
    found = set(frame["cells_per_class"].astype(str))
    return sorted(found, key=lambda text: float("inf") if text == "all" else float(text))


def _by_count(axes: Axes, counts: Sequence[str]) -> None:
    axes.set_xticks(range(len(counts)), counts)
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_xlabel("labelled human cells a class", fontsize=TEXT)
    plain(axes)


def cohorts_figure(cohorts: pd.DataFrame, width: float = WIDE) -> Figure:
    """Cells by subclass, condition and disease, and how often a family is missing.

    Parameters
    ----------
    cohorts : DataFrame
        Table ``cohorts`` of a result folder.
    width : float
        Inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    parts = [
        (f"{species}: {_GROUPS[str(group)]}", str(group), str(species), part)
        for (species, group), part in cohorts.groupby(["species", "group"], sort=False)
        if group in _GROUPS
    ]
    columns = 2 if width >= 2 * _PANEL else 1
    lines = [parts[k : k + columns] for k in range(0, len(parts), columns)]
    heights = [max(len(part) for *_, part in line) + 0.2 for line in lines]
    tall = 0.2 * sum(heights) + 0.38 * len(lines)
    layout = ConstrainedLayoutEngine(wspace=0.04)
    figure = Figure(figsize=(width, tall), layout=layout)
    grid = figure.add_gridspec(len(lines), columns, height_ratios=heights)
    room = 0.38 * width / columns
    for row, line in enumerate(lines):
        for column, (title, group, species, part) in enumerate(line):
            axes = figure.add_subplot(grid[row, column])
            names = part["name"].astype(str).str.replace("_", " ")
            values = part["share"] if group == "missing family" else part["cells"]
            plainly = SPECIES_COLOURS.get(species, GREY)
            colours = [colour_of(n) if group == "subclass" else plainly for n in part["name"]]
            axes.barh(range(len(part)), values, color=colours, height=0.7)
            for place, value in enumerate(values):
                text = f"{100 * value:.1f} %" if group == "missing family" else f"{value:,.0f}"
                axes.annotate(
                    text, (value, place), (3, 0), textcoords="offset points", va="center", size=TEXT
                )
            axes.set_xlim(0, max(float(values.max()), 1e-9) * 1.3)
            axes.set_yticks(range(len(part)), [_fitted(name, room) for name in names])
            axes.set_ylim(max(len(other) for *_, other in line) - 0.4, -0.6)
            axes.set_xticks([])
            axes.set_title(title, fontsize=TEXT, loc="left")
            plain(axes)
            axes.spines["bottom"].set_visible(False)
            axes.spines["left"].set_bounds(-0.5, len(part) - 0.5)
            axes.tick_params(length=0)
    return figure


_GROUPS = {
    "subclass": "cells by subclass",
    "condition": "cells by condition",
    "disease": "cells by disease of the donor",
    "missing family": "cells without a family",
}


def _fitted(text: str, room: float) -> str:
    """A name cut to the room there is; in full it is in the table."""
    if width_of(text) <= room:
        return text
    while len(text) > 3 and width_of(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…"


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
    figure, shown = _stacked(tall, width)
    for axes, title, (*_, part), names in zip(shown, titles, panels, labels, strict=True):
        delta, low, high = (part[n].to_numpy() for n in ("delta_macro_f1", "ci_low", "ci_high"))
        clear = (low > 0) | (high < 0)
        places = np.arange(len(part))
        axes.axvline(0, color="0.6", linewidth=1, zorder=0)
        for chosen, colour, fill, label in (
            (clear, ACCENT, ACCENT, "interval without zero"),
            (~clear, GREY, "white", "interval with zero"),
        ):
            if not chosen.any():
                continue
            ends = np.clip([(delta - low)[chosen], (high - delta)[chosen]], 0, None)
            axes.errorbar(
                delta[chosen],
                places[chosen],
                xerr=ends,
                fmt="o",
                color=colour,
                markerfacecolor=fill,
                markersize=5,
                linewidth=1.2,
                label=label,
            )
        _rows(axes, names, title)
        axes.invert_yaxis()
        axes.set_xlabel(what, fontsize=TEXT)
    _legend_of_all(figure, shown, width)
    return figure


def _parts(table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Parts of a table with a title: the task and model, and what else there are several of."""
    keys = [key for key in keys if key in table]
    told = [
        k for k in keys if k in ("task", "model") or table.groupby("task")[k].nunique().max() > 1
    ]
    found = []
    for values, part in table.groupby(keys, sort=False):
        named: dict[Hashable, Any] = dict(zip(keys, values, strict=True))
        found.append((", ".join(str(named[key]) for key in told), part))
    return found


def _columns(panels: int, width: float) -> int:
    most = max(1, int(width // _PANEL))
    # Four in two rows of two, not three and one.
    return -(-max(panels, 1) // -(-max(panels, 1) // most))


def _grid(
    panels: int, width: float, height: float, *, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Panels of equal size, in as many columns as fit."""
    from matplotlib.figure import Figure

    columns = _columns(panels, width)
    rows = max(1, -(-panels // columns))
    # Few panels are not blown up to the width of the page.
    across = min(width, columns * (height + 0.6))
    figure = Figure(figsize=(across, rows * height + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for axes in grid[panels:]:
        axes.remove()
    for axes in grid[:panels]:
        axes.tick_params(labelleft=True)
    return figure, list(grid[:panels])


def _stacked(rows: Sequence[int], width: float) -> tuple[Figure, list[Axes]]:
    """Panels one below the other on one scale, each as high as its rows need."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # Each panel goes 0.1 rows beyond its first and last; so rows are equally high in all.
    heights = [max(n, 1) + 0.2 for n in rows]
    tall = (LINE + 0.05) * sum(heights) + 0.57 * len(rows) + 0.35
    figure = Figure(figsize=(width, tall), layout="constrained")
    grid = figure.subplots(len(rows), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes in grid:
        axes.tick_params(labelbottom=True)
        # Numbers such as 0.6725 must fit beside each other.
        axes.xaxis.set_major_locator(MaxNLocator(max(3, int(width)), min_n_ticks=2))
    return figure, list(grid)


def _rows(axes: Axes, names: Iterable[str], title: str = "") -> None:
    """Names of the rows, on a light grid."""
    names = list(names)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, fontsize=TEXT, fontweight="bold", loc="left")
    plain(axes)


def _legend_of_all(figure: Figure, panels: Iterable[Axes], width: float) -> None:
    """One legend below, with everything that is in any panel."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) < 2:
        return
    room = max(width_of(label) for label in found) + 0.7
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside lower center",
        ncols=max(1, int(figure.get_figwidth() // room)),
        frameon=False,
        fontsize=TEXT,
    )
