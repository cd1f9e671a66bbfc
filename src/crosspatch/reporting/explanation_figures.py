"""Figures of what a model attends to and what it needs, of `crosspatch explain-models`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.explanation.attention import in_brackets, remark
from crosspatch.reporting.labels import (
    LINE,
    SIDE_BY_SIDE,
    TEXT,
    Panel,
    nothing,
    ordered,
    panels,
    readable,
    width_of,
    wrapped,
)
from crosspatch.reporting.style import ACCENT, SECOND, WIDE, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HOW = {"permuted": (ACCENT, "o"), "removed": (SECOND, "s")}


def attention_figure(attention: pd.DataFrame, width: float = WIDE) -> Figure:
    """Mean attention by family and class of held-out cells, a panel a species and model.

    All panels have one colour scale; a line in its bar is the weight that even attention gives.

    Parameters
    ----------
    attention : DataFrame
        Table ``attention`` of a result folder of kind "explanation".
    width : float
        Inches.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if attention.empty:
        return nothing("No model here has attention weights.", width)
    parts = panels(attention)
    side_by_side = width >= SIDE_BY_SIDE
    columns = 2 if side_by_side and len(parts) > 1 else 1
    rows = -(-len(parts) // columns)
    room = width * (0.28 if columns == 2 else 0.36)
    highest = max(float(np.nan_to_num(attention["weight"]).max()), 1e-9)
    tables = [_attention_table(part) for part in parts]
    named = [
        not number % columns or list(table.index) != list(tables[number - 1].index)
        for number, table in enumerate(tables)
    ]
    taken = _longest_line(tables, room) * (1 + any(named[1::2]) if columns == 2 else 1)
    cell = (width - taken - (0.75 if side_by_side else 0.1) - 0.1 * columns) / columns
    each = [_row_height(table.index, room, 0.26) for table in tables]
    heights = [one * len(table) + 0.2 for one, table in zip(each, tables, strict=True)]
    grid_heights = [max(heights[k * columns : (k + 1) * columns]) for k in range(rows)]
    height = max(sum(grid_heights) + 0.65 * rows + (0.1 if side_by_side else 0.6), 1.6)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.add_gridspec(rows, columns, height_ratios=grid_heights)
    colours = colormaps["viridis"].with_extremes(bad="0.92")
    drawn: list[Axes] = []
    for number, (part, table) in enumerate(zip(parts, tables, strict=True)):
        axes = figure.add_subplot(grid[divmod(number, columns)])
        image = axes.imshow(table, cmap=colours, vmin=0, vmax=highest, aspect="auto")
        across = cell / table.shape[1]
        _name_columns(axes, list(table.columns), across)
        axes.set_yticks(
            range(len(table)),
            [wrapped(readable(name), room) for name in table.index],
            fontsize=TEXT,
        )
        axes.tick_params(length=0, labelsize=TEXT, labelleft=named[number])
        axes.spines[:].set_visible(False)
        axes.set_title(wrapped(part.title, cell), fontsize=TEXT + 1)
        if across > width_of("0.00") + 0.02:
            _write_values(axes, table.to_numpy(dtype=np.float64), highest)
        drawn.append(axes)
    even = 1 / max(len(table) for table in tables)
    if side_by_side:
        bar = figure.colorbar(image, ax=drawn, aspect=40, pad=0.02, fraction=0.05)
        bar.ax.axhline(even, color="white", linewidth=2)
    else:
        bar = figure.colorbar(
            image, ax=drawn, location="bottom", aspect=30, fraction=0.12 / height, pad=0.1 / height
        )
        bar.ax.axvline(even, color="white", linewidth=2)
    label = "mean attention weight (line: even)"
    bar.set_label(wrapped(label, (height if side_by_side else width) - 0.6), fontsize=TEXT)
    bar.ax.tick_params(labelsize=TEXT)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    bar.outline.set_visible(False)
    return figure


def _attention_table(part: Panel) -> pd.DataFrame:
    table = part.table.pivot_table(
        index="family", columns="subclass", values="weight", sort=False, dropna=False
    )
    return table[ordered(table.columns)]


def _row_height(names: Iterable[str], room: float, least: float) -> float:
    """Height of a row in inches, for the name with the most lines."""
    lines = max((wrapped(readable(name), room).count("\n") + 1 for name in names), default=1)
    return max(least, LINE * lines + 0.06)


def _longest_line(tables: list[pd.DataFrame], room: float) -> float:
    names = {name for table in tables for name in table.index}
    return max(
        width_of(line) for name in names for line in wrapped(readable(name), room).split("\n")
    )


def _name_columns(axes: Axes, names: list[str], each: float) -> None:
    turned = max(width_of(name) for name in names) > each - 0.04
    axes.set_xticks(range(len(names)), names, rotation=90 if turned else 0, fontsize=TEXT)


def _write_values(axes: Axes, values: NDArray[np.float64], highest: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        missing = not np.isfinite(value)
        axes.text(
            column,
            row,
            "–" if missing else f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=TEXT,
            # Viridis is dark in its lower part.
            color="black" if missing or value > 0.6 * highest else "white",
        )


def importance_figure(importance: pd.DataFrame, width: float = WIDE) -> Figure:
    """Fall in macro-F1 without a family, permuted and removed, a panel a species and model.

    Families come by their mean fall over all panels. Bars are the table's intervals.

    Parameters
    ----------
    importance : DataFrame
        Table ``importance`` of a result folder of kind "explanation".
    width : float
        Inches.
    """
    from matplotlib.figure import Figure

    overall = importance[importance["scope"] == "macro_f1"]
    if overall.empty:
        return nothing("No family was left out here.", width)
    parts = panels(overall)
    columns = 2 if width >= SIDE_BY_SIDE and len(parts) > 1 else 1
    rows = -(-len(parts) // columns)
    room = width * (0.3 if columns == 2 else 0.36)
    families = [_by_fall(overall, part) for part in parts]
    each = [_row_height(names, room, 0.34) * len(names) for names in families]
    heights = [0.6 + max(each[k * columns : (k + 1) * columns]) for k in range(rows)]
    figure = Figure(figsize=(width, sum(heights) + 0.4), layout="constrained")
    grid = figure.add_gridspec(rows, columns, height_ratios=heights)
    first: Axes | None = None
    for number, (part, names) in enumerate(zip(parts, families, strict=True)):
        axes = figure.add_subplot(grid[divmod(number, columns)], sharex=first)
        first = first or axes
        axes.axvline(0, color="0.6", linewidth=0.8)
        for how, offset in (("permuted", 0.17), ("removed", -0.17)):
            table = part.table[part.table["how"] == how].set_index("family").reindex(names)
            if table["drop"].isna().all():
                continue
            _intervals(axes, table, np.arange(len(names), dtype=np.float64) + offset, how)
        axes.set_title(wrapped(part.title, (width - room) / columns), fontsize=TEXT + 1)
        axes.set_yticks(
            range(len(names)), [wrapped(readable(name), room) for name in names], fontsize=TEXT
        )
        axes.set_ylim(-0.6, len(names) - 0.4)
        plain(axes)
        axes.grid(axis="x", color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        labelled = number % columns == 0 or names != families[number - 1]
        axes.tick_params(axis="y", length=0, labelleft=labelled)
        axes.locator_params(axis="x", nbins=4)
        if number + columns >= len(parts):
            axes.set_xlabel("fall in macro-F1", fontsize=TEXT)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, frameon=False, fontsize=TEXT)
    return figure


def _by_fall(overall: pd.DataFrame, part: Panel) -> list[str]:
    """A panel's families by their mean fall over all panels, largest last."""
    own = list(dict.fromkeys(part.table["family"]))
    falls = overall[overall["family"].isin(own)].groupby("family", sort=False)["drop"].mean()
    return list(falls.sort_values(na_position="first").index)


def _intervals(axes: Axes, table: pd.DataFrame, y: NDArray[np.float64], how: str) -> None:
    colour, marker = _HOW[how]
    drop = table["drop"].to_numpy(dtype=np.float64)
    low = table["ci_low"].to_numpy(dtype=np.float64)
    high = table["ci_high"].to_numpy(dtype=np.float64)
    axes.hlines(y, low, high, color=colour, linewidth=1.3)
    axes.plot(drop, y, marker, color=colour, markersize=4, linestyle="none", label=how)


def agreement_figure(
    importance: pd.DataFrame, attention: pd.DataFrame, agreement: pd.DataFrame, width: float = WIDE
) -> Figure:
    """Attention against what happens without a family, and every rank agreement with its interval.

    A panel a species, model and way to take a family away; families are numbers, named below.
    Were attention an explanation, the numbers would rise from left to right.

    Parameters
    ----------
    importance, attention, agreement : DataFrame
        Tables of a result folder of kind "explanation".
    width : float
        Inches.
    """
    from matplotlib.figure import Figure

    points = _points(importance, attention)
    if points.empty and agreement.empty:
        return nothing("Nothing was compared here.", width)
    side_by_side = width >= SIDE_BY_SIDE
    families = list(dict.fromkeys(points["family"]))
    parts = [
        Panel(f"{part.title}, {how}", part.species, part.table[part.table["how"] == how])
        for part in (panels(points) if len(points) else [])
        for how in _HOW
        if (part.table["how"] == how).any()
    ]
    columns = 2 if side_by_side else 1
    rows = -(-len(parts) // columns)
    key = _key(families, width)
    lines = _agreement_lines(agreement, width)
    key_height = LINE * (1 + key.count("\n")) + 0.1 if parts else 0.0
    line_height = (0.08 if side_by_side else 0.16) + LINE * _most_lines(lines)
    forest_height = line_height * len(lines) + (0.7 if len(lines) else 0.0)
    titles = [_agreement_title(agreement, part, width / columns - 0.8) for part in parts]
    heights = [
        2.0
        + LINE * (1 + max(title.count("\n") for title in titles[k * columns : (k + 1) * columns]))
        for k in range(rows)
    ]
    heights += [key_height] * bool(parts) + [forest_height] * bool(len(lines))
    figure = Figure(figsize=(width, sum(heights) + 0.2), layout="constrained")
    # Figures of their own within it, so that long labels of one leave the others their width.
    shares = [sum(heights) - forest_height + 0.01, forest_height + 0.01]
    above, below = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=shares)))
    scatter: list[tuple[Axes, Panel]] = []
    if parts:
        grid = above.add_gridspec(rows + 1, columns, height_ratios=[*heights[:rows], key_height])
    for number, part in enumerate(parts):
        axes = above.add_subplot(grid[divmod(number, columns)])
        axes.set_title(titles[number], fontsize=TEXT)
        _draw_points(axes, part.table)
        scatter.append((axes, part))
    if parts:
        axes = above.add_subplot(grid[rows, :])
        axes.set_axis_off()
        axes.text(0.5, 0.5, key, ha="center", va="center", fontsize=TEXT, transform=axes.transAxes)
    if len(lines):
        axes = below.add_subplot()
        _draw_agreement(axes, lines, side_by_side)
        label = "rank agreement of families (Spearman)"
        if said_once := _remark(agreement):
            label = wrapped(f"{label}; {said_once}", width - 0.4)
        axes.set_xlabel(label, fontsize=TEXT)
    # Numbers go where they hide no others, which is known only once axes have their places.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, part in scatter:
        _number(axes, part.table, families)
    return figure


def _points(importance: pd.DataFrame, attention: pd.DataFrame) -> pd.DataFrame:
    keys = [
        name
        for name in ("species", "features", "model")
        if name in attention and name in importance
    ]
    drops = importance[importance["scope"] == "macro_f1"]
    weights = attention[attention["subclass"] == "all"]
    return drops.merge(weights[[*keys, "family", "weight", "sd"]], on=[*keys, "family"])


def _agreement_title(agreement: pd.DataFrame, part: Panel, inches: float) -> str:
    """What a panel shows and the verdict on it, in lines."""
    how = part.table["how"].iloc[0]
    rows = agreement[
        (agreement["what"] == f"attention and {how}") & (agreement["species"] == part.species)
    ]
    for name in ("model", "features"):
        if name in rows and name in part.table:
            rows = rows[rows[name] == part.table[name].iloc[0]]
    title, verdict = part.title, "not compared"
    if len(rows):
        rho, verdict = rows["spearman"].iloc[0], str(rows["verdict"].iloc[0])
        if np.isfinite(rho):
            # A no-break space on each side of the sign.
            title += f": ρ\u00a0=\u00a0{rho:.2f}".replace("-", "−")
    return f"{wrapped(title, inches)}\n{wrapped(verdict, inches)}"


def _draw_points(axes: Axes, table: pd.DataFrame) -> None:
    how = table["how"].iloc[0]
    colour, marker = _HOW[how]
    weight, drop = table["weight"].to_numpy(), table["drop"].to_numpy()
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.axvline(1 / max(len(table), 1), color="0.6", linewidth=0.8, linestyle=":")
    axes.hlines(drop, weight - table["sd"], weight + table["sd"], color="0.82", linewidth=1)
    axes.vlines(weight, table["ci_low"], table["ci_high"], color="0.82", linewidth=1)
    axes.plot(weight, drop, marker, color=colour, markersize=4, linestyle="none")
    axes.margins(0.12)
    plain(axes)
    axes.locator_params(nbins=5)
    axes.set_xlabel("mean attention weight (dotted: even)", fontsize=TEXT)
    axes.set_ylabel("fall in macro-F1", fontsize=TEXT)


def _number(axes: Axes, table: pd.DataFrame, families: list[str]) -> None:
    """Write each family's number beside its point, clear of other points and numbers."""
    finite = table[np.isfinite(table["weight"]) & np.isfinite(table["drop"])]
    scale = 72 / axes.figure.dpi
    places = axes.transData.transform(finite[["weight", "drop"]].to_numpy(dtype=np.float64)) * scale
    frame = axes.bbox
    left, bottom = frame.x0 * scale, frame.y0 * scale
    right, top = frame.x1 * scale, frame.y1 * scale
    taken: list[tuple[float, float, float, float]] = [(x, y, 2.5, 2.5) for x, y in places]
    angles = np.deg2rad([45, 0, 90, 135, 180, 225, 270, 315])
    for (x, y), where in zip(places, finite.to_dict("records"), strict=True):
        text = str(families.index(where["family"]) + 1)
        half_width, half_height = width_of(text) * 36 + 0.8, 4.5
        best, cost = (0.0, 0.0), np.inf
        for radius in (8.5, 12.0, 16.0, 21.0, 27.0, 34.0, 42.0):
            for angle in angles:
                at = (x + radius * np.cos(angle), y + radius * np.sin(angle))
                hidden = sum(
                    abs(at[0] - other[0]) < half_width + other[2]
                    and abs(at[1] - other[1]) < half_height + other[3]
                    for other in taken
                )
                outside = not (
                    left + half_width < at[0] < right - half_width
                    and bottom + half_height < at[1] < top - half_height
                )
                if (price := 100 * hidden + 200 * outside + radius) < cost:
                    best, cost = (at[0] - x, at[1] - y), price
        taken.append((x + best[0], y + best[1], half_width, half_height))
        far = np.hypot(*best) > 9
        note = axes.annotate(
            text,
            (float(where["weight"]), float(where["drop"])),
            best,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=TEXT,
            arrowprops={
                "arrowstyle": "-",
                "color": "0.5",
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 1,
            }
            if far
            else None,
        )
        note.set_in_layout(False)


def _key(families: list[str], width: float) -> str:
    """Numbers and names of families, as many in a line as fit."""
    lines: list[str] = []
    for number, family in enumerate(families, 1):
        entry = f"{number} {readable(family)}"
        if lines and width_of(f"{lines[-1]}   {entry}") < width - 0.4:
            lines[-1] += f"   {entry}"
        else:
            lines.append(entry)
    return "\n".join(lines)


def _agreement_lines(agreement: pd.DataFrame, width: float) -> pd.DataFrame:
    """Rows of the agreement table with what they say in words."""
    lines = agreement.copy()
    said_once = in_brackets(_remark(agreement))
    lines["verdict"] = [str(verdict).removesuffix(said_once) for verdict in lines["verdict"]]
    several = len(lines["model"].unique()) > 1 if "model" in lines else False
    lines["label"] = [
        row["what"]
        + ("" if row["species"] == "both" else f", {row['species']}")
        + (f", {row['model']}" if several else "")
        for _, row in lines.iterrows()
    ]
    if width >= SIDE_BY_SIDE:
        lines["label"] = [wrapped(label, 0.28 * width) for label in lines["label"]]
        lines["text"] = [wrapped(str(verdict), 0.36 * width) for verdict in lines["verdict"]]
    else:
        lines["text"] = [
            wrapped(f"{row['label']}: {row['verdict']}", width - 0.5) for _, row in lines.iterrows()
        ]
    return lines


def _remark(agreement: pd.DataFrame) -> str:
    """What all verdicts remark: said once, not in every line."""
    remarks = {remark(*row) for row in agreement[["families", "spearman"]].itertuples(index=False)}
    return remarks.pop() if len(remarks) == 1 else ""


def _most_lines(lines: pd.DataFrame) -> int:
    texts = [*lines["text"], *lines["label"]]
    return max((text.count("\n") + 1 for text in texts), default=1)


def _draw_agreement(axes: Axes, lines: pd.DataFrame, side_by_side: bool) -> None:
    y = np.arange(len(lines))[::-1].astype(float)
    rho = lines["spearman"].to_numpy(dtype=np.float64)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.hlines(y, lines["ci_low"].astype(float), lines["ci_high"].astype(float), color="0.3")
    axes.plot(rho, y, "o", color="0.1", markersize=4)
    axes.set_xlim(-1.05, 1.05)
    plain(axes)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if side_by_side:
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_yticks(y, lines["label"], fontsize=TEXT)
        for at, verdict in zip(y, lines["text"], strict=True):
            axes.text(1.1, at, verdict, va="center", fontsize=TEXT, linespacing=1.0)
        return
    # On a phone what a line is stands above it.
    axes.set_yticks([])
    axes.set_ylim(-0.25, len(lines) - 0.1)
    for at, text in zip(y, lines["text"], strict=True):
        axes.text(
            -1.05,
            at + 0.18,
            text,
            va="bottom",
            fontsize=TEXT,
            linespacing=1.0,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
