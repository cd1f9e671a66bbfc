"""Attention against what happens without a family, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.explanation.attention import in_brackets, remark
from crosspatch.reporting.explanation_figures import HOW
from crosspatch.reporting.labels import readable, width_of, wrapped
from crosspatch.reporting.panels import Panel, add_panels, in_rows, nothing, panels
from crosspatch.reporting.style import (
    LINE,
    SIDE_BY_SIDE,
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
        for how in HOW
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
    colour, marker = HOW[how]
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
