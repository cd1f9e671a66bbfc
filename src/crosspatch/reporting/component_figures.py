"""Figures of sparse principal components: how classes lie, what is in them, and example cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.features.layouts import TRACE
from crosspatch.reporting.feature_rows import FeatureRows, feature_rows, place, sheet
from crosspatch.reporting.labels import (
    LINE,
    SIDE_BY_SIDE,
    TEXT,
    colour_of,
    nothing,
    ordered,
    readable,
    species_in,
    width_of,
    wrapped,
)
from crosspatch.reporting.style import SPECIES_COLOURS, WIDE, plain
from crosspatch.species import SPECIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN = 0.08
_SIGNIFICANT = 0.05
_MARKERS = {name: each.marker for name, each in SPECIES.items()}
_SIGNS = {name: each.sign for name, each in SPECIES.items()}
#: Thin outline that keeps pale colours visible on white.
_OUTLINE = "0.25"


def separation_figure(separation: pd.DataFrame, width: float = WIDE) -> Figure:
    """How far subclasses lie apart in the space of components: d′ of pairs and silhouettes.

    Filled marks have p < 0.05 against permuted labels; the p of open ones is written beside them.

    Parameters
    ----------
    separation : DataFrame
        Table ``separation`` of a result folder of kind "explanation".
    width : float
        Inches.
    """
    from matplotlib.figure import Figure

    if separation.empty:
        return nothing("No classes were compared here.", width)
    kinds = [
        (features, metric, part)
        for features, table in separation.groupby("features", sort=False)
        for metric in ("d_prime", "silhouette")
        if len(part := table[table["metric"] == metric])
    ]
    columns = 2 if width >= SIDE_BY_SIDE else 1
    rows = -(-len(kinds) // columns)
    lines = [_pair_names(part) for _, _, part in kinds]
    heights = [
        0.4 * max(len(names) for names in lines[k * columns : (k + 1) * columns]) + 0.75
        for k in range(rows)
    ]
    figure = Figure(figsize=(width, sum(heights) + 0.5), layout="constrained")
    grid = figure.add_gridspec(rows, columns, height_ratios=heights)
    several = len(separation["features"].unique()) > 1
    for number, ((features, metric, part), names) in enumerate(zip(kinds, lines, strict=True)):
        axes = figure.add_subplot(grid[divmod(number, columns)])
        label = {"d_prime": "d′", "silhouette": "silhouette"}[metric]
        axes.set_title(label + (f", {features}" if several else ""), fontsize=TEXT + 1)
        axes.axvline(0, color="0.6", linewidth=0.8)
        present = species_in(part)
        for place_of, name in enumerate(present):
            own = part[part["species"] == name]
            offset = 0.36 * place_of - 0.18 * (len(present) - 1)
            _draw_separations(axes, own, names, offset, name)
        axes.set_yticks(range(len(names)), list(names), fontsize=TEXT)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.16)
        axes.set_xlabel(
            "distance in pooled SDs" if metric == "d_prime" else "−1 mixed … 1 apart", fontsize=TEXT
        )
        axes.grid(axis="x", color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        plain(axes)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=5)
    _species_legend(figure, species_in(separation))
    return figure


def _pair_names(part: pd.DataFrame) -> list[str]:
    order = ordered([*part["a"], *part["b"]])
    pairs = sorted(
        set(zip(part["a"].astype(str), part["b"].astype(str), strict=True)),
        key=lambda pair: (order.index(pair[0]), order.index(pair[1])),
    )
    return list(dict.fromkeys(_pair_name(*pair) for pair in pairs))


def _pair_name(a: str, b: str) -> str:
    if a == b:
        return a
    return a if b == "rest" else f"{a}, {b}"


def _draw_separations(
    axes: Axes, part: pd.DataFrame, names: list[str], offset: float, species: str
) -> None:
    colour = SPECIES_COLOURS.get(species, "0.3")
    for a, b, value, p in zip(part["a"], part["b"], part["value"], part["p_value"], strict=True):
        if not np.isfinite(value):
            continue
        y = names.index(_pair_name(str(a), str(b))) + offset
        known = p < _SIGNIFICANT
        axes.plot([0, value], [y, y], color=colour, linewidth=1, alpha=0.5)
        axes.plot(
            value,
            y,
            _MARKERS.get(species, "s"),
            markersize=5,
            color=colour,
            markerfacecolor=colour if known else "white",
        )
        if not known:
            # Left of a negative value stand the names of the classes.
            axes.annotate(
                f"p = {p:.2f}" if np.isfinite(p) else "no p",
                (max(value, 0.0), y),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=TEXT,
                color="0.3",
            )


def _species_legend(figure: Figure, species: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=SPECIES_COLOURS.get(name, "0.3"),
            marker=_MARKERS.get(name, "s"),
            markersize=5,
            linestyle="none",
            label=name,
        )
        for name in species
    ]
    handles.append(
        Line2D(
            [],
            [],
            color="0.3",
            marker="o",
            markersize=5,
            markerfacecolor="white",
            linestyle="none",
            label="p ≥ 0.05",
        )
    )
    figure.legend(
        handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=TEXT
    )


def map_figure(map: pd.DataFrame, width: float = WIDE) -> Figure:  # noqa: A002
    """UMAP fitted on one species, the other laid over it: alone, then pale under the other.

    Parameters
    ----------
    map : DataFrame
        Table ``map`` of a result folder of kind "explanation".
    width : float
        Inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    cells = map[np.isfinite(map["x"].astype(float)) & np.isfinite(map["y"].astype(float))]
    if cells.empty:
        return nothing("No cell has a place on the map.", width)
    species = species_in(cells)
    columns = len(species) if width >= SIDE_BY_SIDE else 1
    rows = -(-len(species) // columns)
    side = min((width - 0.2) / columns, 4.2)
    groups = ordered(cells["subclass"].dropna())
    across = len(groups) if width >= SIDE_BY_SIDE or len(groups) == 4 else 3
    height = rows * (side + 0.2) + 0.1 + 0.2 * -(-len(groups) // across)
    figure = Figure(figsize=(width, height), layout="constrained")
    limits = [_limits(cells[name].to_numpy(dtype=np.float64)) for name in ("x", "y")]
    for number, name in enumerate(species):
        axes = figure.add_subplot(rows, columns, number + 1)
        for under in species[:number]:
            _scatter(axes, cells[cells["species"] == under], under, pale=True)
        own = cells[cells["species"] == name]
        _scatter(axes, own, name, pale=False)
        over = f" over {' and '.join(species[:number])} (pale)" if number else ""
        axes.set_title(f"{name}{over}: {len(own):,} cells", fontsize=TEXT + 1)
        axes.set_xlim(*limits[0])
        axes.set_ylim(*limits[1])
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_box_aspect(1)
        axes.set_xlabel("UMAP 1", fontsize=TEXT)
        axes.set_ylabel("UMAP 2", fontsize=TEXT)
        plain(axes)
    handles = [
        Line2D(
            [],
            [],
            marker="o",
            markersize=6,
            color=colour_of(group),
            markeredgecolor=_OUTLINE,
            markeredgewidth=0.4,
            linestyle="none",
            label=group,
        )
        for group in groups
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=across,
        columnspacing=1.2,
        handletextpad=0.2,
        frameon=False,
        fontsize=TEXT,
    )
    return figure


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    edge = 0.04 * (high - low) or 1.0
    return low - edge, high + edge


def _scatter(axes: Axes, cells: pd.DataFrame, species: str, pale: bool) -> None:
    from matplotlib.colors import to_rgb

    # In random order, so that no class lies over all others.
    shuffled = cells.sample(frac=1, random_state=0)
    groups = shuffled["subclass"].astype(str)
    known = {group: np.array(to_rgb(colour_of(group))) for group in set(groups)}
    colours = np.array([known[group] for group in groups]).reshape(-1, 3)
    if pale:
        colours = 1 - 0.28 * (1 - colours)
    few = len(cells) < 1500
    axes.scatter(
        shuffled["x"],
        shuffled["y"],
        s=10 if few else 6,
        c=colours,
        marker=_MARKERS.get(species, "s"),
        linewidths=0 if pale else (0.4 if few else 0.2),
        edgecolors="none" if pale else _OUTLINE,
        rasterized=True,
    )


def loadings_figure(loadings: pd.DataFrame, width: float = WIDE) -> Figure:
    """What the sparse components are made of, by family and species.

    For traces, the mean trace with the loading of the first component along it, and below it a
    strip with a line a component, the first on top. For single numbers, loadings by feature.

    Parameters
    ----------
    loadings : DataFrame
        Table ``loadings`` of a result folder of kind "explanation", of one layout.
    width : float
        Inches.
    """
    if loadings.empty:
        return nothing("No components were computed here.", width)
    positions = loadings.groupby("family", sort=False)["feature"].nunique()
    if (positions > TRACE).any():
        return _trace_loadings(loadings, width)
    return _scalar_loadings(loadings, width)


def _trace_loadings(loadings: pd.DataFrame, width: float) -> Figure:
    from matplotlib.figure import Figure

    loadings = _in_milliseconds(loadings, ["mean"])
    species = species_in(loadings)
    families = list(dict.fromkeys(loadings["family"]))
    across = 2 if width >= SIDE_BY_SIDE and len(families) > 1 else 1
    rows = -(-len(families) // across)
    axis = 0.5
    block = (width - _MARGIN) / across
    panel = block / len(species) - axis - 0.05
    titles = {
        family: wrapped(
            _with_unit(family, loadings[loadings["family"] == family]), block - 0.2, bold=True
        )
        for family in families
    }
    title = LINE * (1 + max(text.count("\n") for text in titles.values()))
    strip, trace, head = 0.34, 0.72, title + 0.25
    pitch = head + trace + strip + 0.14
    key = 0.72 if width >= SIDE_BY_SIDE else 1.05
    figure = Figure(figsize=(width, key + rows * pitch + 0.05))
    _loading_bar(figure, width, "loading, as a share of the family's largest")
    left, top = (3.6, 0.22) if width >= SIDE_BY_SIDE else (0.1, 0.66)
    _write(figure, left, top, "after a species: components (share of variance)", False)
    _write(figure, left, top + 0.18, "trace: mean, coloured by the first; strip: all", False)
    for number, family in enumerate(families):
        row, column = divmod(number, across)
        top = key + row * pitch
        own = loadings[loadings["family"] == family]
        for place_of, name in enumerate(species):
            part = own[own["species"] == name]
            left = column * block + axis + place_of * (panel + axis + 0.05)
            above = place(figure, left, top + head, panel, trace)
            below = place(figure, left, top + head + trace + 0.03, panel, strip)
            _draw_trace(above, below, part)
            if place_of == 0:
                _write(figure, left - axis + 0.06, top + 0.02 + title / 2, titles[family], True)
            _write(figure, left, top + title + 0.12, _parts_title(name, part), False)
    return figure


def _write(figure: Figure, left: float, top: float, text: str, bold: bool) -> None:
    across, down = figure.get_size_inches()
    figure.text(
        left / across,
        1 - top / down,
        text,
        va="center",
        fontsize=TEXT,
        fontweight="bold" if bold else "normal",
        linespacing=1.0,
    )


def _in_milliseconds(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Families of short times in ms: numbers such as 0.00075 are hard to read, and wide."""
    table = table.copy()
    largest = table[columns].abs().max(axis=1).groupby(table["family"]).transform("max")
    short = (table["unit"] == "s") & (largest < 0.1)
    table.loc[short, columns] *= 1000
    table.loc[short, "unit"] = "ms"
    return table


def _with_unit(family: str, part: pd.DataFrame) -> str:
    units = set(part["unit"].astype(str)) - {"ratio"}
    return readable(family) + (f" ({units.pop()})" if len(units) == 1 else "")


def _parts_title(name: str, part: pd.DataFrame) -> str:
    if part.empty:
        return f"{name}: none"
    shares = part.groupby("component")["variance"].first()
    return f"{name}: {len(shares)} ({shares.sum() * 100:.0f} %)"


def _draw_trace(above: Axes, below: Axes, part: pd.DataFrame) -> None:
    below.set_xticks([])
    below.set_yticks([])
    below.spines[:].set_visible(False)
    above.set_xticks([])
    plain(above)
    above.spines["bottom"].set_visible(False)
    above.locator_params(axis="y", nbins=3)
    if part.empty:
        above.set_axis_off()
        return
    table = part.pivot_table(index="component", columns="position", values="loading", dropna=False)
    table = table.sort_index().sort_index(axis=1)
    mean = part.groupby("position")["mean"].first().reindex(table.columns).to_numpy(dtype=float)
    values = table.to_numpy(dtype=np.float64)
    largest = max(float(np.nanmax(np.abs(values), initial=0.0)), 1e-12)
    shares = values / largest
    x = np.arange(len(mean))
    above.plot(x, mean, color="0.75", linewidth=0.9)
    used = np.abs(np.nan_to_num(shares[0])) > 0
    above.scatter(
        x[used],
        mean[used],
        c=shares[0][used],
        cmap="RdBu_r",
        vmin=-1,
        vmax=1,
        s=5,
        linewidths=0,
        rasterized=True,
        zorder=3,
    )
    below.imshow(shares, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    below.set_facecolor("0.9")
    above.set_xlim(-0.5, len(mean) - 0.5)


def _loading_bar(figure: Figure, width: float, text: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    across = min(width - 0.6, 2.9)
    bar = place(figure, 0.3, 0.28, across, 0.11)
    scale = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), "RdBu_r"), cax=bar, orientation="horizontal"
    )
    scale.outline.set_visible(False)
    scale.set_ticks([-1, 0, 1])
    bar.tick_params(labelsize=TEXT, length=2)
    bar.set_title(text, fontsize=TEXT, pad=3)


def _scalar_loadings(loadings: pd.DataFrame, width: float) -> Figure:
    species = species_in(loadings)
    families = dict(zip(loadings["feature"], loadings["family"].astype(str), strict=True))
    rows = feature_rows(families, max(width * 0.36, min(2.7, width - 2.2)), 0.175)
    counts = {
        name: loadings[loadings["species"] == name].groupby("family")["component"].nunique().max()
        for name in species
    }
    gap = 0.25
    room = width - 2 * _MARGIN - rows.label_width - 0.08 - gap * (len(species) - 1)
    cell = min(room / max(sum(counts.values()), 1), 0.4)
    key, head = 0.62, 0.3
    figure, axes = sheet(width, key + head + rows.height + 0.1)
    _loading_bar(figure, width, "loading")
    top = key + head
    rows.write(axes, _MARGIN, top)
    left = _MARGIN + rows.label_width + 0.08
    for name in species:
        across = cell * counts[name]
        axes.text(left + across / 2, key + 0.12, name, ha="center", va="center", fontsize=TEXT + 1)
        own = loadings[loadings["species"] == name]
        for family, part in own.groupby("family", sort=False):
            _draw_family_loadings(axes, part, str(family), rows, left, top, cell)
        left += across + gap
    return figure


def _draw_family_loadings(
    axes: Axes,
    part: pd.DataFrame,
    family: str,
    rows: FeatureRows,
    left: float,
    top: float,
    cell: float,
) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    colours = colormaps["RdBu_r"]
    components = sorted(part["component"].unique())
    shares = part.groupby("component")["variance"].first()
    labels = [f"{shares[component] * 100:.0f}" for component in components]
    labels[0] += " %"
    if all(width_of(label) < cell for label in labels):
        for number, label in enumerate(labels):
            axes.text(
                left + (number + 0.5) * cell,
                top + rows.headings[family][0],
                label,
                ha="center",
                va="center",
                fontsize=TEXT,
                color="0.35",
            )
    tiles = []
    for feature, component, loading in zip(
        part["feature"], part["component"], part["loading"], strict=True
    ):
        above, height, _ = rows.features[feature]
        tile = min(height, 0.175) - 0.02
        x = left + components.index(component) * cell
        y = top + above + (height - tile) / 2
        colour = colours((loading + 1) / 2) if np.isfinite(loading) and loading else "0.95"
        tiles.append(
            Rectangle((x, y), cell - 0.02, tile, facecolor=colour, edgecolor="none", linewidth=0)
        )
    axes.add_collection(PatchCollection(tiles, match_original=True), autolim=False)


def examples_figure(examples: pd.DataFrame, width: float = WIDE) -> Figure:
    """An example cell of each subclass among the quartiles of its subclass, family by family.

    For traces a panel a family and subclass, one species below the other. For single numbers a
    line a feature, standardised within its species: dot the example, line the quartiles, and a
    stroke at the median.

    Parameters
    ----------
    examples : DataFrame
        Table ``examples`` of a result folder of kind "explanation", of one layout.
    width : float
        Inches.
    """
    if examples.empty:
        return nothing("There are no example cells here.", width)
    positions = examples.groupby("family", sort=False)["feature"].nunique()
    if (positions > TRACE).any():
        return _trace_examples(examples, width)
    return _scalar_examples(examples, width)


def _trace_examples(examples: pd.DataFrame, width: float) -> Figure:
    from matplotlib.figure import Figure

    examples = _in_milliseconds(examples, ["example", "low", "median", "high"])
    species = species_in(examples)
    groups = {name: _groups_of(examples, name) for name in species}
    families = list(dict.fromkeys(examples["family"]))
    most = max(len(each) for each in groups.values())
    axis, gap = 0.5, 0.06
    panel = (width - axis - _MARGIN) / most - gap
    names = {
        family: wrapped(
            _with_unit(family, examples[examples["family"] == family]), width - 2 * _MARGIN
        )
        for family in families
    }
    lines = 1 + max(name.count("\n") for name in names.values())
    trace, head, title = 0.6, 0.06 + LINE * lines, 0.45
    pitch = trace + head + 0.06
    figure = Figure(figsize=(width, len(species) * (title + len(families) * pitch) + 0.05))
    top = 0.0
    for name in species:
        own = examples[examples["species"] == name]
        _write(figure, _MARGIN, top + 0.12, f"{name}: example cell, quartiles pale", True)
        for number, group in enumerate(groups[name]):
            left = axis + number * (panel + gap)
            middle = left + max(panel - width_of(group), 0) / 2
            _write(figure, middle, top + 0.32, group, False)
        for row, family in enumerate(families):
            part = own[own["family"] == family]
            above = top + title + row * pitch
            _write(figure, _MARGIN, above + head / 2, names[family], False)
            limits = _value_limits(part)
            for number, group in enumerate(groups[name]):
                left = axis + number * (panel + gap)
                axes = place(figure, left, above + head, panel, trace)
                _draw_example(axes, part[part["subclass"] == group], group)
                axes.set_ylim(*limits)
                axes.locator_params(axis="y", nbins=3)
                axes.tick_params(axis="y", labelleft=number == 0, length=2)
        top += title + len(families) * pitch
    return figure


def _groups_of(examples: pd.DataFrame, species: str) -> list[str]:
    return ordered(examples.loc[examples["species"] == species, "subclass"].dropna())


def _value_limits(part: pd.DataFrame) -> tuple[float, float]:
    values = part[["example", "low", "high"]].to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    return _limits(values) if len(values) else (0.0, 1.0)


def _draw_example(axes: Axes, part: pd.DataFrame, group: str) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import Normal, Stroke

    axes.set_xticks([])
    plain(axes)
    axes.spines["bottom"].set_visible(False)
    part = part.sort_values("position")
    values = part[["example", "low", "high"]].to_numpy(dtype=np.float64)
    if not np.isfinite(values).any():
        axes.text(
            0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes, fontsize=TEXT
        )
        return
    x = np.arange(len(values))
    red, green, blue = to_rgb(colour_of(group))
    pale = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
    axes.fill_between(
        x,
        values[:, 1],
        values[:, 2],
        color=colour_of(group),
        alpha=0.35,
        linewidth=0,
        rasterized=True,
    )
    axes.plot(
        x,
        values[:, 0],
        color=colour_of(group),
        linewidth=1,
        path_effects=[Stroke(linewidth=1.6, foreground=_OUTLINE), Normal()] if pale else [],
    )
    axes.set_xlim(0, max(len(values) - 1, 1))


def _scalar_examples(examples: pd.DataFrame, width: float) -> Figure:
    species = species_in(examples)
    table = _standardised(examples)
    groups = ordered(table["subclass"].dropna())
    families = dict(zip(table["feature"], table["family"].astype(str), strict=True))
    rows = feature_rows(families, max(width * 0.36, min(2.7, width - 2.2)), 0.2)
    gap = 0.08
    left = _MARGIN + rows.label_width + 0.08
    panel = (width - left - _MARGIN) / len(groups) - gap
    marks = ", ".join(f"{_SIGNS.get(name, '■')} {name}" for name in species)
    text = wrapped(f"{marks}: example cell; bar: quartiles; stroke: median", width - 2 * _MARGIN)
    lines = 1 + text.count("\n")
    turned = any(width_of(group) > panel - 0.04 for group in groups)
    head = max(width_of(group) for group in groups) + 0.1 if turned else 0.28
    key, foot = 0.12 + LINE * lines + head, 0.42
    figure, axes = sheet(width, key + rows.height + foot)
    _write(figure, _MARGIN, 0.05 + LINE * lines / 2, text, False)
    values = table[["example", "low", "high"]].to_numpy(dtype=np.float64)
    limit = float(np.ceil(np.nanmax(np.abs(values), initial=1.0)))
    rows.write(axes, _MARGIN, key)
    roomy = panel > 0.75
    for number, feature in enumerate(rows.features):
        if number % 2:
            above, height, _ = rows.features[feature]
            axes.axhspan(key + above, key + above + height, left / width, color="0.96", zorder=0)
    for number, group in enumerate(groups):
        at = left + number * (panel + gap)
        axes.text(
            at + panel / 2,
            key - 0.05,
            group,
            ha="center",
            va="bottom",
            fontsize=TEXT,
            rotation=90 if turned else 0,
        )
        own = place(figure, at, key, panel, rows.height)
        _draw_profile(
            own, table[table["subclass"] == group], group, species, rows, 3.6 if roomy else 2.6
        )
        own.set_xlim(-1.1 * limit, 1.1 * limit)
        own.set_xticks([-limit, 0, limit] if roomy else [0])
    axes.text(
        left + (width - left - _MARGIN) / 2,
        key + rows.height + 0.31,
        "standardised value" + ("" if roomy else f" (to ±{limit:.0f})"),
        ha="center",
        va="center",
        fontsize=TEXT,
    )
    return figure


def _standardised(examples: pd.DataFrame) -> pd.DataFrame:
    """Values in units of the spread within subclasses, from the mean of their medians.

    What lies more than 4 of them away is drawn there.
    """
    table = examples.copy()
    by = table.groupby(["species", "feature"], sort=False)
    centre = by["median"].transform("mean")
    spread = (table["high"] - table["low"]).groupby([table["species"], table["feature"]])
    # Quartiles of a normal distribution are 1.349 SD apart.
    scale = spread.transform("mean") / 1.349
    scale = scale.where(scale > 0)
    for name in ("example", "low", "median", "high"):
        table[name] = ((table[name] - centre) / scale).clip(-4, 4)
    return table


def _draw_profile(
    axes: Axes, table: pd.DataFrame, group: str, species: list[str], rows: FeatureRows, size: float
) -> None:
    colour = colour_of(group)
    axes.set_facecolor("none")
    axes.set_ylim(rows.height, 0)
    axes.axvline(0, color="0.8", linewidth=0.7)
    offsets = np.linspace(-0.045, 0.045, len(species)) if len(species) > 1 else [0.0]
    for name, offset in zip(species, offsets, strict=True):
        own = table[table["species"] == name]
        y = np.array([rows.middle(feature) for feature in own["feature"]]) + offset
        for shade, thick in ((_OUTLINE, 2.2), (colour, 1.5)):
            axes.hlines(y, own["low"], own["high"], color=shade, linewidth=thick, zorder=2)
        axes.vlines(own["median"], y - 0.035, y + 0.035, color="black", linewidth=0.8, zorder=3)
        axes.plot(
            own["example"],
            y,
            _MARKERS.get(name, "s"),
            color=colour,
            markeredgecolor=_OUTLINE,
            markeredgewidth=0.5,
            markersize=size,
            linestyle="none",
            zorder=4,
        )
    axes.set_yticks([])
    plain(axes)
    axes.spines["left"].set_visible(False)
