"""Figures of what a model attends to and what it needs, and of how far the two agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.cohorts.taxonomy import ordered
from crosspatch.drawing.labels import readable, width_of, wrapped
from crosspatch.drawing.panels import (
    Panel,
    across_zero,
    add_panels,
    in_rows,
    nothing,
    panelled,
    panels,
)
from crosspatch.drawing.style import (
    ACCENT,
    LARGE,
    LINE,
    SECOND,
    SIDE_BY_SIDE,
    TEXT,
    WIDE,
    ZERO,
    new_figure,
    plain,
    styled,
)
from crosspatch.explanation.attention import in_brackets, remark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour and mark of each way to take a family away.
_HOW = {"permuted": (ACCENT, "o"), "removed": (SECOND, "s")}


@styled
def attention_figure(attention: pd.DataFrame, width: float = WIDE) -> Figure:
    """Mean attention by family and class of held-out cells, one panel per species and model.

    All panels have one colour scale; a line in its bar is the weight that even attention gives.
    """
    if attention.empty:
        return nothing("No model here has attention weights.", width)
    parts = panels(attention)
    side_by_side = width >= SIDE_BY_SIDE
    columns = 2 if side_by_side and len(parts) > 1 else 1
    room = width * (0.28 if columns == 2 else 0.36)
    highest = max(float(np.nan_to_num(attention["weight"]).max()), 1e-9)
    tables = [_attention_table(part) for part in parts]
    named = _named([list(table.index) for table in tables], columns)
    taken = _longest_line(tables, room) * (1 + (columns == 2 and any(named[1::2])))
    cell = (width - taken - (0.75 if side_by_side else 0.1) - 0.1 * columns) / columns
    heights = [_rows_height(list(table.index), room, 0.26) + 0.2 for table in tables]
    tall = sum(max(row) + 0.65 for row in in_rows(heights, columns))
    height = max(tall + (0.1 if side_by_side else 0.6), 1.6)
    figure = new_figure(width, height)
    drawn = add_panels(figure, heights, columns)
    for axes, part, table, labelled in zip(drawn, parts, tables, named, strict=True):
        _draw_attention(axes, table, cell / table.shape[1], highest)
        axes.set_yticks(range(len(table)), [wrapped(readable(name), room) for name in table.index])
        axes.tick_params(length=0, labelsize=TEXT, labelleft=labelled)
        axes.set_title(wrapped(part.title, cell), fontsize=LARGE)
    _attention_bar(figure, drawn, 1 / max(map(len, tables)), upright=side_by_side)
    return figure


def _attention_bar(figure: Figure, drawn: list[Axes], even: float, *, upright: bool) -> None:
    """The scale, beside the panels or below them, with a line at even weights."""
    from matplotlib.ticker import MaxNLocator

    image, (width, height) = drawn[-1].images[0], figure.get_size_inches()
    if upright:
        bar = figure.colorbar(image, ax=drawn, aspect=40, pad=0.02, fraction=0.05)
        bar.ax.axhline(even, color="white", linewidth=2)
    else:
        share, pad = 0.12 / height, 0.1 / height
        bar = figure.colorbar(
            image, ax=drawn, location="bottom", aspect=30, fraction=share, pad=pad
        )
        bar.ax.axvline(even, color="white", linewidth=2)
    label = "mean attention weight (line: even)"
    bar.set_label(wrapped(label, (height if upright else width) - 0.6))
    bar.ax.tick_params(labelsize=TEXT)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    bar.outline.set_visible(False)


def _named(rows: list[list[str]], columns: int) -> list[bool]:
    """Whether each panel needs names: not where the panel left of it has the same."""
    return [not number % columns or names != rows[number - 1] for number, names in enumerate(rows)]


def _attention_table(part: Panel) -> pd.DataFrame:
    table = part.table.pivot_table(
        index="family", columns="subclass", values="weight", sort=False, dropna=False
    )
    return table[ordered(table.columns)]


def _rows_height(names: Sequence[str], room: float, least: float) -> float:
    """Height of rows in inches, as many as there are names, for the name with the most lines."""
    lines = max((wrapped(readable(name), room).count("\n") + 1 for name in names), default=1)
    return max(least, LINE * lines + 0.06) * len(names)


def _longest_line(tables: list[pd.DataFrame], room: float) -> float:
    names = {name for table in tables for name in table.index}
    return max(
        width_of(line) for name in names for line in wrapped(readable(name), room).split("\n")
    )


def _draw_attention(axes: Axes, table: pd.DataFrame, across: float, highest: float) -> None:
    """Tiles so many inches wide, with their values where these fit."""
    from matplotlib import colormaps

    colours = colormaps["viridis"].with_extremes(bad="0.92")
    axes.imshow(table, cmap=colours, vmin=0, vmax=highest, aspect="auto")
    axes.spines[:].set_visible(False)
    turned = max(map(width_of, table.columns)) > across - 0.04
    axes.set_xticks(range(table.shape[1]), list(table.columns), rotation=90 if turned else 0)
    if across <= width_of("0.00") + 0.02:
        return
    for (row, column), value in np.ndenumerate(table.to_numpy(dtype=np.float64)):
        text = f"{value:.2f}" if np.isfinite(value) else "–"
        # Viridis is dark in its lower part.
        colour = "white" if value <= 0.6 * highest else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour)


@styled
def importance_figure(importance: pd.DataFrame, width: float = WIDE) -> Figure:
    """Fall in macro-F1 without a family, permuted and removed, one panel per species and model.

    Families come by their mean fall over all panels. Bars are the table's intervals.
    """
    overall = importance[importance["scope"] == "macro_f1"]
    if overall.empty:
        return nothing("No family was left out here.", width)
    parts = panels(overall)
    columns = 2 if width >= SIDE_BY_SIDE and len(parts) > 1 else 1
    room = width * (0.3 if columns == 2 else 0.36)
    families = [_by_fall(overall, part) for part in parts]
    heights = [0.6 + _rows_height(names, room, 0.34) for names in families]
    figure, drawn = panelled(width, heights, columns, 0.4, sharex=True)
    named = _named(families, columns)
    for axes, part, names, labelled in zip(drawn, parts, families, named, strict=True):
        across_zero(axes, [wrapped(readable(name), room) for name in names])
        axes.set_ylim(-0.6, len(names) - 0.4)
        _draw_falls(axes, part.table, names)
        axes.set_title(wrapped(part.title, (width - room) / columns), fontsize=LARGE)
        axes.tick_params(axis="y", labelleft=labelled)
        axes.locator_params(axis="x", nbins=4)
    for axes in drawn[-columns:]:
        axes.set_xlabel("fall in macro-F1")
    handles, labels = drawn[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def _by_fall(overall: pd.DataFrame, part: Panel) -> list[str]:
    """A panel's families by their mean fall over all panels, largest last."""
    own = list(dict.fromkeys(part.table["family"]))
    falls = overall[overall["family"].isin(own)].groupby("family", sort=False)["drop"].mean()
    return list(falls.sort_values(na_position="first").index)


def _draw_falls(axes: Axes, table: pd.DataFrame, names: list[str]) -> None:
    """Marks with intervals for each way to take a family away, where there are any."""
    for how, offset in (("permuted", 0.17), ("removed", -0.17)):
        part = table[table["how"] == how].set_index("family").reindex(names)
        drop, low, high = part[["drop", "ci_low", "ci_high"]].to_numpy(dtype=np.float64).T
        if np.isfinite(drop).any():
            y, (colour, marker) = np.arange(len(names)) + offset, _HOW[how]
            axes.hlines(y, low, high, color=colour, linewidth=1.3)
            axes.plot(drop, y, marker, color=colour, markersize=4, label=how)


@styled
def agreement_figure(
    importance: pd.DataFrame, attention: pd.DataFrame, agreement: pd.DataFrame, width: float = WIDE
) -> Figure:
    """Attention against what happens without a family, and every rank agreement with its interval.

    One panel per species, model and way to take a family away; families are numbers, named below.
    Were attention an explanation, the numbers would rise from left to right.
    """
    points = _points(importance, attention)
    if points.empty and agreement.empty:
        return nothing("Nothing was compared here.", width)
    families = list(dict.fromkeys(points["family"]))
    parts = _agreement_parts(points)
    columns = 2 if width >= SIDE_BY_SIDE else 1
    titles = [_agreement_title(agreement, part, width / columns - 0.8) for part in parts]
    heights = [2.0 + LINE * (1 + title.count("\n")) for title in titles]
    key = _key(families, width)
    upper = sum(max(row) for row in in_rows(heights, columns))
    upper += LINE * (1 + key.count("\n")) + 0.1 if parts else 0.0
    lines = _agreement_lines(agreement, width)
    lower = _agreement_height(lines, width) if len(lines) else 0.0
    figure = new_figure(width, upper + lower + 0.2)
    # Figures of their own within it, so that long labels of one leave the others their width.
    shares = [upper + 0.01, lower + 0.01]
    above, below = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=shares)))
    scatter = add_panels(above, heights, columns) if parts else []
    for axes, part, title in zip(scatter, parts, titles, strict=True):
        axes.set_title(title)
        _draw_points(axes, part.table)
    if parts:
        above.supxlabel(key, fontsize=TEXT)
    if len(lines):
        axes = below.add_subplot()
        _draw_agreement(axes, lines, side_by_side=columns == 2)
        said = ["rank agreement of families (Spearman)", _remark(agreement)]
        axes.set_xlabel(wrapped("; ".join(filter(None, said)), width - 0.4))
    # Numbers go where they hide no others, which is known only once axes have their places.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, part in zip(scatter, parts, strict=True):
        _number(axes, part.table, families)
    return figure


def _points(importance: pd.DataFrame, attention: pd.DataFrame) -> pd.DataFrame:
    there = attention.columns.intersection(importance.columns)
    keys = [name for name in ("species", "features", "model") if name in there]
    drops = importance[importance["scope"] == "macro_f1"]
    weights = attention[attention["subclass"] == "all"]
    return drops.merge(weights[[*keys, "family", "weight", "sd"]], on=[*keys, "family"])


def _agreement_parts(points: pd.DataFrame) -> list[Panel]:
    return [
        Panel(f"{part.title}, {how}", part.species, part.table[part.table["how"] == how])
        for part in (panels(points) if len(points) else [])
        for how in _HOW
        if (part.table["how"] == how).any()
    ]


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
    axes.axhline(0, color=ZERO, linewidth=0.8)
    axes.axvline(1 / max(len(table), 1), color=ZERO, linewidth=0.8, linestyle=":")
    axes.hlines(drop, weight - table["sd"], weight + table["sd"], color="0.82", linewidth=1)
    axes.vlines(weight, table["ci_low"], table["ci_high"], color="0.82", linewidth=1)
    axes.plot(weight, drop, marker, color=colour, markersize=4, linestyle="none")
    axes.margins(0.12)
    plain(axes, xlabel="mean attention weight (dotted: even)", ylabel="fall in macro-F1")
    axes.locator_params(nbins=5)


def _number(axes: Axes, table: pd.DataFrame, families: list[str]) -> None:
    """Write each family's number beside its point, clear of other points and numbers."""
    finite = table[np.isfinite(table["weight"]) & np.isfinite(table["drop"])]
    scale = 72 / axes.figure.dpi
    places = axes.transData.transform(finite[["weight", "drop"]].to_numpy(dtype=np.float64)) * scale
    frame = axes.bbox
    left, bottom = frame.x0 * scale, frame.y0 * scale
    right, top = frame.x1 * scale, frame.y1 * scale
    taken: list[tuple[float, float, float, float]] = [(x, y, 2.5, 2.5) for x, y in places]
    line = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 1}
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
            arrowprops=line if far else None,
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


def _agreement_height(lines: pd.DataFrame, width: float) -> float:
    """Inches that the lines take, for the one with the most lines of text."""
    most = max(text.count("\n") + 1 for text in [*lines["text"], *lines["label"]])
    return 0.7 + len(lines) * ((0.08 if width >= SIDE_BY_SIDE else 0.16) + LINE * most)


def _draw_agreement(axes: Axes, lines: pd.DataFrame, *, side_by_side: bool) -> None:
    y = np.arange(len(lines))[::-1].astype(float)
    rho = lines["spearman"].to_numpy(dtype=np.float64)
    axes.axvline(0, color=ZERO, linewidth=0.8)
    axes.hlines(y, lines["ci_low"].astype(float), lines["ci_high"].astype(float), color="0.3")
    axes.plot(rho, y, "o", color="0.1", markersize=4)
    plain(axes, xlim=(-1.05, 1.05))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if side_by_side:
        axes.set(ylim=(-0.6, len(lines) - 0.4), yticks=y, yticklabels=lines["label"])
        for at, verdict in zip(y, lines["text"], strict=True):
            axes.text(1.1, at, verdict, va="center", linespacing=1.0)
        return
    # On a phone what a line is stands above it.
    axes.set(yticks=[], ylim=(-0.25, len(lines) - 0.1))
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for at, text in zip(y, lines["text"], strict=True):
        axes.text(-1.05, at + 0.18, text, va="bottom", linespacing=1.0, bbox=box)
