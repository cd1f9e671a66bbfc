"""The columns of another laboratory's feature table: which feature each is, and in which unit."""

from __future__ import annotations

import difflib
import itertools
import re
import unicodedata
from collections import Counter

import pandas as pd

from crosspatch.errors import CohortError
from crosspatch.features.layouts import SCALAR_LAYOUTS, Feature, Layout
from crosspatch.tables.choices import FeatureChoice
from crosspatch.tables.column_map import Ambiguity, ColumnMap
from crosspatch.tables.fitting import Fitted, fit
from crosspatch.tables.mapping import Override, Overrides, entry, line, require_known, require_once
from crosspatch.tables.meanings import Exactness, Meaning, meaning_of, unit_in, vocabularies_of
from crosspatch.tables.names import (
    ABSOLUTE,
    family_of,
    features,
    key,
    names,
    range_of,
    split_stimulus,
    words,
)
from crosspatch.tables.own_columns import fit_own, own_key
from crosspatch.tables.settling import Candidate, EmptyError, RefusedColumnError
from crosspatch.tables.taken import Reason, Taken
from crosspatch.tables.units import DIMENSION, dimension_of
from crosspatch.tables.values import NUMERIC_SHARE, FirstRows

# The values tell whether they are negated.
_OF_EITHER_SIGN = ("fast_trough_deltav", "trough_deltav", "downstroke")


def map_columns(
    frame: pd.DataFrame,
    layout: Layout,
    overrides: Overrides | None = None,
    *,
    absent_ok: bool = False,
) -> ColumnMap:
    """Find out which columns of a foreign table give which features, and in which units.

    Nothing is guessed: a column that may be several features, or be in several units, is refused
    with the line of the mapping file that settles it. The frame has the first rows, some thousand
    if there are as many, with all columns as text or numbers. Overrides may be of several tables:
    with `absent_ok` they may name columns that this one does not have.

    A CohortError if the layout is not of single numbers, or an override names a column that is not
    there or stands twice, a feature twice, a unit of another dimension, or what the values cannot
    be.
    """
    measured = layout.measured.features
    unknown = [f.name for f in measured if not f.column and f.name not in features()]
    if unknown:
        raise CohortError(
            f"columns cannot be mapped to layout '{layout.name}', it has '{unknown[0]}'; use one "
            f"of {', '.join(SCALAR_LAYOUTS)}"
        )
    mapping = overrides or Overrides("the mapping", {})
    require_once(mapping)
    return _Mapper(FirstRows(frame), layout, mapping).map(absent_ok=absent_ok)


class _Mapper:
    """Sorts the columns of one table."""

    def __init__(self, table: FirstRows, layout: Layout, mapping: Overrides) -> None:
        self.table, self.layout, self.mapping = table, layout.measured, mapping
        self.takes_layer = layout.has_layer
        self.wanted = set(self.layout.feature_names)
        # What a wanted difference is made of is read too.
        for absolute, delta in ABSOLUTE.items():
            for stem, stimulus in map(split_stimulus, self.layout.feature_names):
                if stem == delta:
                    self.wanted |= {f"{absolute}_{stimulus}", f"threshold_v_{stimulus}"}
        self.refused: dict[str, Reason] = {}
        self.unused: dict[str, Reason] = {}
        self.labels: list[str] = []
        self.unknown: list[str] = []
        self.either: dict[str, tuple[str, ...]] = {}
        self.candidates: list[Candidate] = []
        # The features that a column of the table is known to give, and the columns that are called
        # so, or chosen for them, of those that are taken as they stand.
        self.own = {own_key(each.column): each for each in layout.features if each.column}
        self.called: dict[str, list[str]] = {}

    def map(self, *, absent_ok: bool) -> ColumnMap:
        absent = self._check_overrides(absent_ok=absent_ok)
        once = self._refuse_duplicates()
        cell_id = self._special(once, "cell_id", names().cell_id)
        species = self._special(once, "species", names().species)
        layer = self._special(once, "layer", names().layer) if self.takes_layer else None
        vocabularies = vocabularies_of(once)
        for column in once:
            if column not in (cell_id, species, layer):
                self._sort(column, vocabularies)
        taken = FeatureChoice(self.layout, self._fitted(), self.refused, self.unused).choose()
        self._settle_either(taken)

        place = {column: number for number, column in enumerate(self.table.headers)}

        def in_order(reasons: dict[str, Reason]) -> tuple[tuple[str, Reason], ...]:
            return tuple(sorted(reasons.items(), key=lambda item: place[item[0]]))

        return ColumnMap(
            layout=self.layout,
            cell_id=cell_id,
            species=species,
            layer=layer,
            taken=tuple(taken[name] for name in self.layout.feature_names if name in taken),
            refused=in_order(self.refused),
            ambiguous=tuple(Ambiguity(*item) for item in self.either.items()),
            unused=in_order(self.unused),
            labels=tuple(self.labels),
            unknown=tuple(self.unknown),
            absent=absent,
        )

    def _refuse_duplicates(self) -> list[str]:
        """The columns whose name no other column has."""
        unnamed: set[str] = set()
        for header, count in Counter(self.table.headers).items():
            if count > 1 and not header.strip():
                self.labels.append(header)
                unnamed.add(header)
            elif count > 1:
                self.refused[header] = Reason(
                    f"{count} columns have this name; give each its own or remove all but one"
                )
        for header in self.table.headers:
            self._refuse_numbered(header)
        skipped = unnamed | set(self.refused)
        return [header for header in self.table.headers if header not in skipped]

    def _refuse_numbered(self, header: str) -> None:
        """Refuse a second column "tau", which pandas names "tau.1", together with the first."""
        numbered = re.fullmatch(r"(.+)\.\d+", header)
        base = numbered[1] if numbered else ""
        mapped = {header, base} & set(self.mapping.columns)
        if base not in self.table.headers or mapped or meaning_of(base, set()) is None:
            return
        for column in (header, base):
            self.refused[column] = Reason(
                f"'{base}' and '{header}' look like two columns of one name",
                f"write {entry(header, 'ignore')}, or map it",
            )

    def _check_overrides(self, *, absent_ok: bool) -> tuple[str, ...]:
        """Refuse overrides that cannot be; the columns that the table does not have."""
        headers = self.table.headers
        absent = []
        for column, override in self.mapping.columns.items():
            where = f"{self.mapping.name}, column '{column}'"
            if column not in headers and absent_ok:
                absent.append(column)
            elif column not in headers:
                near = difflib.get_close_matches(column, headers, n=1)
                hint = f"; the nearest is '{near[0]}'" if near else ""
                raise CohortError(f"{where}: the table has no such column{hint}")
            if headers.count(column) > 1:
                raise CohortError(f"{where}: the table has several such columns; rename them")
            if override.target not in self.wanted - set(features()):
                require_known(override, where)
        return tuple(absent)

    def _special(self, columns: list[str], what: str, keys: list[str]) -> str | None:
        """The column of cell ids, say: the one mapped, else the first of the known names."""
        given = self.mapping.columns
        mapped = [c for c in columns if c in given and given[c].target == what]
        free = {key(words(c)): c for c in reversed(columns) if c not in self.mapping.columns}
        return next(iter([*mapped, *(free[name] for name in keys if name in free)]), None)

    def _sort(self, column: str, vocabularies: set[str]) -> None:
        """Put a column where its name says it belongs."""
        override = self.mapping.columns.get(column)
        meaning = meaning_of(column, vocabularies)
        if override is not None:
            self._sort_mapped(column, override, meaning)
        elif own_key(column) in self.own:
            self._sort_own(column, self.own[own_key(column)], meaning)
        elif meaning is None:
            self._sort_other(column)
        elif meaning.kind == "unlike":
            self.unused[column] = self._why_unlike(column, meaning)
        elif not set(meaning.features) & self.wanted:
            self.unused[column] = self._not_in_layout()
        elif meaning.kind == "either":
            self.either[column] = tuple(n for n in meaning.features if n in self.wanted)
            lines = " or ".join(line(column, name) for name in self.either[column])
            self.refused[column] = Reason(
                f"may be {' or '.join(meaning.features)}",
                f"write {lines} in the mapping file, or 'ignore' instead",
            )
        else:
            self.candidates.append(Candidate(column, meaning))

    def _sort_own(self, column: str, feature: Feature, meaning: Meaning | None) -> None:
        """A column that is called as one of the table that the layout was made of."""
        if feature.name in features():
            known = Override(feature.name, source="as in the table of the model")
            self._sort_mapped(column, known, meaning)
        else:
            self.called.setdefault(feature.name, []).append(column)

    def _why_unlike(self, column: str, meaning: Meaning) -> Reason:
        (why,) = meaning.notes
        ours = meaning.features[0] if meaning.features else ""
        if ours not in self.wanted:
            return Reason(why)
        return Reason(why, f"to take it all the same, write {entry(column, ours)}")

    def _not_in_layout(self) -> Reason:
        return Reason(f"not in layout '{self.layout.name}'")

    def _sort_mapped(self, column: str, override: Override, meaning: Meaning | None) -> None:
        feature, source = override.target, override.source
        if feature in self.wanted - set(features()):
            self.called.setdefault(feature, []).append(column)
        elif feature == "ignore":
            self.unused[column] = Reason(f"{source or self.mapping.name} says to ignore it")
        elif feature not in self.wanted:
            self.unused[column] = self._not_in_layout()
        else:
            mapped = Meaning(
                "feature",
                (feature,),
                override.operation or _operation_of(override, meaning),
                Exactness.MAPPED,
                override.unit or (meaning.unit if meaning is not None else unit_in(column)),
                (source or "mapping file",),
                own=True,
            )
            self.candidates.append(Candidate(column, mapped, certain=override.unit is not None))

    def _sort_other(self, column: str) -> None:
        """A column whose name is no feature's: a label, or numbers that were not understood."""
        found = words(unicodedata.normalize("NFKC", column))
        dtype, read = self.table.series(column).dtype, self.table.read(column)
        label = (
            not column.strip()
            or key(found) in (*names().cell_id, *names().species)
            or not names().label.isdisjoint(found)
            or pd.api.types.is_bool_dtype(dtype)
            or pd.api.types.is_datetime64_any_dtype(dtype)
            or (read.filled and read.share < NUMERIC_SHARE)
        )
        (self.labels if label else self.unknown).append(column)

    def _fitted(self) -> dict[str, list[Fitted]]:
        """By feature, the columns that give it, those that say so most exactly first."""
        own = itertools.chain.from_iterable(self.called.values())
        self.table.settle([*(candidate.column for candidate in self.candidates), *own])
        fitted: dict[str, list[Fitted]] = {}
        order = {candidate.column: place for place, candidate in enumerate(self.candidates)}
        # Which zeros are missing is told by the columns that cannot be 0.
        for candidate in sorted(self.candidates, key=lambda c: not range_of(c.feature).no_zero):
            column, feature = candidate.column, candidate.feature
            try:
                found = fit(candidate, self.table)
            except RefusedColumnError as error:
                self._require_unmapped(candidate, error)
                self.refused[column] = error.reason
            else:
                fitted.setdefault(feature, []).append(found)
                if range_of(feature).no_zero:
                    self.table.never_zero(column, family_of(feature))
        for options in fitted.values():
            options.sort(key=lambda option: (-option.level, order[option.column]))
        return fitted | self._fitted_own()

    def _fitted_own(self) -> dict[str, list[Fitted]]:
        """By feature, the column of that very name, where the layout has columns as they stand."""
        found: dict[str, list[Fitted]] = {}
        given = self.mapping.columns
        for feature in self.own.values():
            columns = self.called.get(feature.name, [])
            mapped = [column for column in columns if column in given]
            exact = mapped or [column for column in columns if column == feature.column]
            if len(exact or columns) != 1:
                why = Reason(f"{len(columns)} columns are called so", "rename all but one")
                self.refused.update((column, why) for column in columns)
                continue
            (column,) = exact or columns
            other = Reason(f"{feature.name} is given by '{column}'")
            self.unused.update((each, other) for each in columns if each != column)
            unit = given[column].unit if mapped else None
            try:
                found[feature.name] = [fit_own(feature, column, self.table, unit)]
            except RefusedColumnError as error:
                self.refused[column] = error.reason
        return found

    def _require_unmapped(self, candidate: Candidate, error: RefusedColumnError) -> None:
        """What a mapping says of a column, its values must not contradict."""
        override = self.mapping.columns.get(candidate.column)
        if override is not None and override.source is None and not isinstance(error, EmptyError):
            raise CohortError(
                f"{self.mapping.name}, column '{candidate.column}': {error}"
            ) from error

    def _settle_either(self, taken: dict[str, Taken]) -> None:
        """An ambiguous column is not asked for where better ones give all it may be."""
        for column, options in list(self.either.items()):
            if all(name in taken for name in options):
                del self.either[column], self.refused[column]
                by = " and ".join(f"{name} by {taken[name].source}" for name in options)
                self.unused[column] = Reason(f"may be {' or '.join(options)}; given are {by}")


def _operation_of(override: Override, meaning: Meaning | None) -> str:
    """How a feature is computed of which a mapping does not say it."""
    if split_stimulus(override.target)[0] in _OF_EITHER_SIGN:
        return "sign"
    ours = dimension_of(features()[override.target].unit)
    if override.unit is not None and DIMENSION[override.unit] != ours:
        return "reciprocal"
    known = meaning is not None and meaning.features == (override.target,)
    return meaning.operation if meaning is not None and known else "plain"
