"""Feature layouts: which families there are, in which order, with which features and units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import LayoutError
from crosspatch.texts import data_rows

#: Layouts of single numbers: the features both species share, and the human table's own.
SCALAR_LAYOUTS = ("shared", "full")


@dataclass(frozen=True)
class VectorSettings:
    """The twelve families of feature vectors and how they are binned.

    Families and lengths follow IPFX 2.1.2, ``run_feature_vector_extraction``.
    """

    name: str
    subthreshold: tuple[int, ...]  # steps whose subthreshold responses are joined, pA
    normalised_at: float  # amplitude nearest to which the normalised response is taken, pA
    above_rheobase: tuple[int, ...]  # steps above rheobase whose spikes are binned, pA
    tolerance: float  # how far a step may be from one of these, pA
    shift: float | None  # shift tried where fewer than two steps match, pA; None for no shift
    rate_bin: int  # bin of the spike rate, ms
    #: Whether first action potentials of the three stimuli are averaged, or joined.
    average_first_ap: bool
    spike_bin: int = 20  # bin of the other spike features, ms
    subthreshold_bin: float = 0.01  # bin of the subthreshold responses, s
    around_step: float = 0.2  # shown before and after a step, s
    step: float = 1.0  # steps of the reference, s
    ap_window: float = 0.003  # first action potential: s from threshold, and Hz
    ap_rate: float = 50_000.0
    isi_points: int = 100  # points of the mean interspike trajectory

    @property
    def lengths(self) -> dict[str, int]:
        """Family to its number of positions."""
        ap = round(self.ap_window * self.ap_rate)
        stimuli = 1 if self.average_first_ap else 3
        response = round((self.step + 2 * self.around_step) / self.subthreshold_bin)
        levels = len(self.above_rheobase)
        spikes = levels * round(self.step * 1000 / self.spike_bin)
        return {
            "first_ap_v": stimuli * ap,
            "first_ap_dv": stimuli * (ap - 1),
            "isi_shape": self.isi_points,
            "step_subthresh": len(self.subthreshold) * response,
            "subthresh_norm": response,
            "psth": levels * round(self.step * 1000 / self.rate_bin),
            "inst_freq": spikes,
        } | dict.fromkeys((name for name in _VECTOR_UNITS if name.startswith("spiking_")), spikes)


#: Layouts of feature vectors, by name.
VECTOR_LAYOUTS = {
    # Gouwens et al. 2020, as IPFX 2.1.2 computes it.
    "gouwens": VectorSettings(
        name="gouwens",
        subthreshold=(-90, -70, -50, -30, -10),
        normalised_at=-101.0,
        above_rheobase=(0, 20, 40, 60, 80, 100),
        tolerance=0.0,
        shift=10.0,
        rate_bin=50,
        average_first_ap=False,
    ),
    # Schwider and Ramezani, arXiv 2603.11000 (2026).
    "paper": VectorSettings(
        name="paper",
        subthreshold=(-90, -50, -30),
        normalised_at=-110.0,
        above_rheobase=(0, 40, 80),
        tolerance=5.0,
        shift=None,
        rate_bin=20,
        average_first_ap=True,
    ),
}

#: A family with more positions than this is a trace: its positions are measured together.
TRACE = 20

#: The family of where a cell lies, which no recording tells. It comes last, and whether it is there
#: makes a cell neither more complete nor more usual.
LOCATION = "location"
#: Name of the layouts that are the columns of a laboratory's own table.
OWN = "own"

#: All layouts shipped with the package.
LAYOUT_NAMES = (*SCALAR_LAYOUTS, *VECTOR_LAYOUTS)

_VECTOR_UNITS = {
    "first_ap_v": "mV",
    "first_ap_dv": "mV/sample",
    "isi_shape": "mV",
    "step_subthresh": "mV",
    "subthresh_norm": "ratio",
    "psth": "spikes/s",
    "inst_freq": "spikes/s",
    "spiking_threshold_v": "mV",
    "spiking_peak_v": "mV",
    "spiking_width": "s",
    "spiking_fast_trough_v": "mV",
    "spiking_upstroke_downstroke_ratio": "ratio",
}


@dataclass(frozen=True)
class Feature:
    """One number measured on a cell."""

    name: str  # name in IPFX's vocabulary, for example ``threshold_v_rheo``
    family: str  # the family it belongs to
    unit: str  # unit as text, for example ``mV``; ``ratio`` where it has none
    #: The column that gives it, in layouts of a laboratory's own table; else empty.
    column: str = ""


#: The cortical layer, in order of depth (`crosspatch.features.cortical_layer.layer_depth`). No
#: layout that is shipped has it.
LAYER = Feature("layer", LOCATION, "layer")


@dataclass(frozen=True)
class Layout:
    """An ordered set of features in families: the meaning of the columns of a feature array."""

    name: str
    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names:
            raise LayoutError(f"layout '{self.name}' has no features")
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise LayoutError(f"layout '{self.name}' names a feature twice: {', '.join(twice)}")
        where = [feature.family == LOCATION for feature in self.features]
        if where != sorted(where) or all(where):
            raise LayoutError(f"layout '{self.name}' has no features before those of {LOCATION}")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Feature names, in column order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def families(self) -> tuple[str, ...]:
        """Family names, in order of first appearance."""
        return tuple(dict.fromkeys(feature.family for feature in self.features))

    @cached_property
    def columns(self) -> dict[str, NDArray[np.intp]]:
        """Column indices of every family."""
        return {
            family: np.flatnonzero([feature.family == family for feature in self.features])
            for family in self.families
        }

    @cached_property
    def traces(self) -> tuple[str, ...]:
        """Families that are traces: more than `TRACE` positions, measured together."""
        return tuple(name for name, columns in self.columns.items() if len(columns) > TRACE)

    @cached_property
    def measured_in(self) -> str | None:
        """The layout shipped with the package that has all its features; None if none has."""
        wanted = {(each.name, each.unit) for each in self.features}
        for name in LAYOUT_NAMES:
            if wanted <= {(each.name, each.unit) for each in load_layout(name).features}:
                return name
        return None

    @cached_property
    def places(self) -> NDArray[np.intp]:
        """Where its features stand in the layout that it is `measured_in`."""
        names = load_layout(self.measured_in or self.name).feature_names
        at = dict(zip(names, range(len(names)), strict=True))
        return np.array([at[name] for name in self.feature_names])

    @property
    def has_layer(self) -> bool:
        """Whether the cortical layer is one of the features."""
        return LAYER in self.features

    def with_layer(self) -> Layout:
        """The layout with the cortical layer."""
        return self if self.has_layer else Layout(self.name, (*self.features, LAYER))

    @property
    def measured(self) -> Layout:
        """The layout without location: its first features, which are measured on recordings."""
        if LOCATION not in self.families:
            return self
        return Layout(self.name, tuple(each for each in self.features if each.family != LOCATION))

    @property
    def title(self) -> str:
        """Its name, and what it has besides what is measured: ``full + layer``."""
        return f"{self.name} + {LAYER.name}" if self.has_layer else self.name

    @property
    def width(self) -> int:
        """Number of features in the largest family."""
        return max(len(columns) for columns in self.columns.values())

    def within(self, wider: Layout) -> NDArray[np.intp] | slice:
        """The columns of a wider layout that are these features, by name and unit.

        A `LayoutError` if it lacks one. Traces of one name are binned otherwise in another layout,
        so a layout that has any is only within its like.
        """
        if wider.features[: len(self.features)] == self.features:
            return slice(len(self.features))
        units = {feature.name: feature.unit for feature in wider.features}
        for feature in self.features:
            if units.get(feature.name) != feature.unit or self.traces or wider.traces:
                raise LayoutError(
                    f"layout '{wider.name}' does not hold '{feature.name}' ({feature.unit}) of "
                    f"layout '{self.name}'"
                )
        places = {name: place for place, name in enumerate(units)}
        return np.array([places[name] for name in self.feature_names], dtype=np.intp)

    def present(self, X: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which families cells have, shape (cells, families): those with any finite value.

        `X` has shape (cells, features), NaN where missing.
        """
        finite = np.isfinite(X)
        columns = self.columns.values()
        return np.stack([finite[:, family].any(axis=1) for family in columns], axis=1)

    def completeness(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """How much of the layout a cell has: the share of features present, mean over families.

        From 0 to 1, shape (cells,), for feature values of shape (cells, features), NaN where
        missing. A trace counts as present where any of its positions is; location does not count.
        """
        finite = np.isfinite(X)
        shares = [
            finite[:, columns].any(axis=1)
            if family in self.traces
            else finite[:, columns].mean(axis=1)
            for family, columns in self.columns.items()
            if family != LOCATION
        ]
        return np.mean(np.stack(shares, axis=1), axis=1, dtype=np.float64)


@cache
def load_layout(name: str) -> Layout:
    """One of the layouts shipped with the package; a `LayoutError` for another name."""
    if name not in LAYOUT_NAMES:
        raise LayoutError(f"no layout '{name}'; choose from: {', '.join(LAYOUT_NAMES)}")
    if name in VECTOR_LAYOUTS:
        features = (
            Feature(f"{family}[{position}]", family, _VECTOR_UNITS[family])
            for family, length in VECTOR_LAYOUTS[name].lengths.items()
            for position in range(length)
        )
        return Layout(name, tuple(features))
    rows = data_rows("features", name)
    return Layout(name, tuple(Feature(r["feature"], r["family"], r["unit"]) for r in rows))


@cache
def plain_layout(count: int) -> Layout:
    """So many columns of which nothing is known: each is a family of its own."""
    return Layout("plain", tuple(Feature(f"x{k}", f"x{k}", "ratio") for k in range(count)))
