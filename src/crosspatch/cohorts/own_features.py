"""Which columns of a laboratory's own table are features, and why the others are not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.features.layouts import OWN, SCALAR_LAYOUTS, Feature, Layout, load_layout
from crosspatch.tables.column_map import ColumnMap
from crosspatch.tables.columns import map_columns
from crosspatch.tables.endings import CHUNK
from crosspatch.tables.mapping import Overrides
from crosspatch.tables.meanings import unit_in
from crosspatch.tables.names import features as our_features
from crosspatch.tables.own_columns import fit_own, own_feature, own_key
from crosspatch.tables.settling import RefusedColumnError
from crosspatch.tables.taken import Taken
from crosspatch.tables.units import DIMENSION
from crosspatch.tables.values import NUMERIC_SHARE, Counted, FirstRows

#: Least share of the cells that have a feature.
_MEASURED = 0.1
#: Of a code that gives the label away: least share of the cells whose value others have too, and
#: how many values there may be for a class if it gets so large a share of the others than the
#: largest class wrong. With more values it must get all right: a count of spikes nearly may.
_SHARED, _FEW, _WRONG = 0.9, 3, 0.02
#: Balanced accuracy, on cells held back, from which a column alone is said to tell the label.
_TELLING = 0.98
#: Cells from which numbers that never repeat, or never differ within a donor, say something.
_ENOUGH = 20
#: Whole numbers without a repetition are identifiers if they are so large, or so many.
_LONG_ID, _MANY = 10_000, 100
# A unit of these makes a name such as "AHP depth" that of a measurement.
_ELECTRICAL = {"voltage", "current", "resistance", "time", "rate", "rate of rise"}
# Units of ages, weights, temperatures and nucleic acids.
_NOT_ELECTRICAL = re.compile(
    r"[(\[]\s*(min(utes?)?|h|hours?|d|days?|weeks?|months?|y|years?|m?k?g|°C|degC|bp|[pn]g/.l)\s*[)\]]"
)


@dataclass(frozen=True)
class OwnFeatures:
    """The features of a table, and what is to be said of its columns."""

    layout: Layout
    X: NDArray[np.float32]  # shape (cells, features)
    columns: ColumnMap  # what gives the features
    ours: ColumnMap  # how columns were recognised as features of ours
    missing: Mapping[str, Counted]  # column to its values that were taken as missing
    #: Column to why it is left out.
    left_out: dict[str, str] = field(default_factory=dict)
    #: Column to why it is not taken for the feature of ours that it is called like.
    not_ours: dict[str, str] = field(default_factory=dict)
    #: What must not be overlooked: columns that give the label away.
    loud: list[str] = field(default_factory=list)


def own_features(
    frame: pd.DataFrame, overrides: Overrides | None, chosen: Sequence[str] = ()
) -> OwnFeatures:
    """The numeric columns of cells: ours by our names and units, the others as they stand.

    Columns that were chosen are taken whatever they are called. The frame has no other columns than
    may be features, as text or numbers.
    """
    first = frame.iloc[:CHUNK]
    every = {f.name: f for name in SCALAR_LAYOUTS for f in load_layout(name).features}
    ours = map_columns(first, Layout(OWN, tuple(every.values())), overrides, absent_ok=True)
    known = [taken for taken in ours.taken if not _is_doubtful(taken)]
    used = {column for taken in known for column in taken.columns}
    own, left_out = _as_they_stand(first, ours, used, overrides, chosen)
    # Differences of two columns, and what these are themselves, are found again by their names.
    paired = {name for taken in known if len(taken.columns) > 1 for name in taken.columns}
    source = {taken.feature: taken.columns[0] for taken in known}
    kept = {feature: name for feature, name in source.items() if name not in paired}
    features = [replace(every[each], column=kept.get(each, "")) for each in source] + own
    if not features:
        nothing = np.zeros((len(frame), 0), dtype=np.float32)
        return OwnFeatures(ours.layout, nothing, ours, ours, {}, left_out)
    columns = map_columns(first, Layout(OWN, tuple(features)), overrides, absent_ok=True)
    X, missing = columns.values(frame)
    called = {each.column for each in own}
    not_ours = {name: why.why for name, why in (*ours.refused, *ours.unused) if name in called}
    found = OwnFeatures(columns.layout, X, columns, ours, missing, left_out, not_ours)
    lost = {source.get(name, name): f"it does not give {name} again" for name in columns.missing}
    return replace(_with(found, columns.taken), left_out=left_out | lost)


def _with(found: OwnFeatures, taken: Collection[Taken]) -> OwnFeatures:
    """With the features that are taken only."""
    there = {each.feature for each in taken}
    places = [k for k, each in enumerate(found.layout.features) if each.name in there]
    if not places:
        return replace(found, X=found.X[:, :0])
    layout = Layout(OWN, tuple(found.layout.features[k] for k in places))
    return replace(found, layout=layout, X=found.X[:, places])


def _is_doubtful(taken: Taken) -> bool:
    """Whether it may be another ratio: hardly any is written in per cent without saying so."""
    return taken.unit == "%" and unit_in(taken.columns[0]) is None


def _as_they_stand(
    first: pd.DataFrame,
    ours: ColumnMap,
    used: Collection[str],
    overrides: Overrides | None,
    chosen: Sequence[str],
) -> tuple[list[Feature], dict[str, str]]:
    """Columns of numbers that are no feature of ours, and why the other columns are none."""
    rows = FirstRows(first)
    skipped = {*used, *(overrides.columns if overrides else ())}
    rest = [name for name in dict.fromkeys(rows.headers) if name not in skipped]
    rows.settle(name for name in rest if rows.headers.count(name) == 1)
    alike = Counter(own_key(name) for name in rows.headers)
    found: list[Feature] = []
    left_out: dict[str, str] = {}
    for name in rest:
        why = "several columns are called so; rename them" if alike[own_key(name)] > 1 else None
        why = why or _why_not(name, rows, ours, name in chosen)
        if why is not None:
            left_out[name] = why
            continue
        feature = own_feature(name, rows)
        try:
            fit_own(feature, name, rows)
        except RefusedColumnError as error:
            left_out[name] = str(error)
        else:
            found.append(feature)
    return found, left_out


def _why_not(name: str, rows: FirstRows, ours: ColumnMap, chosen: bool) -> str | None:
    """Why a column is no feature, by its name and what kind of values it has."""
    read, dtype = rows.read(name), rows.series(name).dtype
    if not read.filled:
        return "it holds no values"
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "dates"
    if read.of_deviations and read.share < NUMERIC_SHARE:
        return "means with their deviations, perhaps of several cells"
    if pd.api.types.is_bool_dtype(dtype) or read.share < NUMERIC_SHARE:
        return "text"
    measured = _is_electrical(name)
    special = name in (ours.cell_id, ours.species)
    if not chosen and (special or (name in ours.labels and not measured)):
        return "by its name a label, a name or a note"
    if not chosen and _NOT_ELECTRICAL.search(name):
        return "by its unit nothing electrical"
    return None


def _is_electrical(name: str) -> bool:
    """Whether a header names a unit that only a measurement of a recording has."""
    return DIMENSION.get(unit_in(name) or "") in _ELECTRICAL


def without_giveaways(
    found: OwnFeatures, y: NDArray[np.str_], donors: NDArray[np.str_], chosen: Sequence[str] = ()
) -> OwnFeatures:
    """The features that can be used: not those that are constant, name the cell or tell the label.

    Columns that were chosen stay, unless they are constant; what they give away is said.
    """
    source = {taken.feature: taken.columns[0] for taken in found.columns.taken}
    kept, left_out, loud = [], dict(found.left_out), list(found.loud)
    for place in range(found.X.shape[1]):
        feature = found.layout.features[place]
        column, values = source[feature.name], found.X[:, place].astype(np.float64)
        why = _why_useless(values)
        if why is None and column not in chosen and feature.name not in our_features():
            why = _why_identity(values, donors, measured=_is_electrical(column))
        if why is None and gives_label(values, y):
            said = f"column '{column}' is a code that gives the label away"
            loud.append(f"{said}; it is {'kept, as asked' if column in chosen else 'left out'}")
            why = None if column in chosen else "a code that gives the label away"
        elif why is None and _tells_label(values, y):
            loud.append(
                f"column '{column}' alone tells the label of nearly every cell; if it was not "
                "measured on the cell's electrical behaviour, leave it out"
            )
        if why is None:
            kept.append(place)
        else:
            left_out[column] = why
    same = _same_as_before(found.X, kept)
    for place, first in same.items():
        second, before = (source[found.layout.features[k].name] for k in (place, first))
        left_out[second] = f"the same values as '{before}'"
    names = {found.layout.features[place].name for place in kept if place not in same}
    used = [taken for taken in found.columns.taken if taken.feature in names]
    return replace(_with(found, used), left_out=left_out, loud=loud)


def _why_useless(values: NDArray[np.float64]) -> str | None:
    known = values[np.isfinite(values)]
    if len(known) < _MEASURED * len(values):
        return f"nearly all missing: {len(known)} of {len(values)} cells have it"
    if len(np.unique(known)) < 2:
        return "one value for all cells"
    return None


def _why_identity(
    values: NDArray[np.float64], donors: NDArray[np.str_], *, measured: bool
) -> str | None:
    """Why values say which cell or donor it is, rather than what was measured on it.

    Of a column whose unit says that it was measured, whole numbers say nothing.
    """
    known = np.isfinite(values)
    numbers, of = values[known], donors[known]
    if len(numbers) < _ENOUGH:
        return None
    if not measured and np.all(numbers % 1 == 0):
        different = len(np.unique(numbers)) == len(numbers)
        counts = bool(np.all(np.diff(numbers) > 0))
        if different and (counts or len(numbers) >= _MANY or np.abs(numbers).min() >= _LONG_ID):
            return "a number of the cell: no two are alike"
        if _are_dates(numbers):
            return "dates"
    _, donor, sizes = np.unique(of, return_inverse=True, return_counts=True)
    several = sizes[donor] > 1
    if 2 * several.sum() >= len(numbers) and several.sum() >= _ENOUGH:
        spread = pd.Series(numbers[several]).groupby(donor[several]).nunique()
        if (spread == 1).all():
            return "one value for each donor: it says whose cell it is"
    return None


def _are_dates(numbers: NDArray[np.float64]) -> bool:
    """Whether whole numbers are years, or days such as 20190314."""
    year, rest = np.divmod(numbers, 10_000)
    month, day = np.divmod(rest, 100)
    days = (year >= 1900) & (year < 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    years = (numbers >= 1990) & (numbers < 2100)
    return bool(days.mean() > 0.95 or years.all())


def gives_label(values: NDArray[np.float64], y: NDArray[np.str_]) -> bool:
    """Whether whole numbers are a code by which the label is known, such as a cluster's."""
    known = np.isfinite(values)
    numbers, of = values[known], y[known]
    if len(numbers) < _ENOUGH or not np.all(numbers % 1 == 0):
        return False
    counts = pd.crosstab(numbers, of).to_numpy()
    counts = counts[counts.sum(axis=1) > 1]
    total = counts.sum()
    if total < _SHARED * len(numbers):
        return False
    wrong, others = total - counts.max(axis=1).sum(), total - counts.sum(axis=0).max()
    few = len(counts) <= _FEW * counts.shape[1]
    return bool(others > 0 and wrong <= (_WRONG * others if few else 0))


def _tells_label(values: NDArray[np.float64], y: NDArray[np.str_]) -> bool:
    """Whether a small tree of one column tells the label of cells that it has not seen."""
    from sklearn.model_selection import cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    known = np.isfinite(values)
    classes, counts = np.unique(y[known], return_counts=True)
    if 2 * known.sum() < len(values) or len(classes) < 2 or counts.min() < 5:
        return False
    tree = DecisionTreeClassifier(max_leaf_nodes=2 * len(classes), random_state=0)
    score = cross_val_score(tree, values[known, None], y[known], scoring="balanced_accuracy")
    return bool(score.mean() >= _TELLING)


def _same_as_before(X: NDArray[np.float32], kept: Sequence[int]) -> dict[int, int]:
    """Columns that have the values of one before them wherever both have any, and which."""
    known = np.isfinite(X)
    found: dict[int, int] = {}
    for first, place in combinations(kept, 2):
        both = known[:, first] & known[:, place]
        alike = np.array_equal(X[both, first], X[both, place])
        if alike and 2 * both.sum() >= known[:, place].sum() and place not in found:
            found[place] = first
    return found
