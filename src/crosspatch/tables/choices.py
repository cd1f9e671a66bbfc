"""Which of several columns gives a feature, and which potentials are subtracted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crosspatch.features.layouts import Layout
from crosspatch.tables.fitting import Fitted
from crosspatch.tables.mapping import entry
from crosspatch.tables.meanings import Exactness
from crosspatch.tables.names import ABSOLUTE, Numbers, features, range_of, split_stimulus
from crosspatch.tables.taken import Reason, Taken

_WHY_LOWER = {
    Exactness.DIFFERENCE: "is a difference of two columns",
    Exactness.BARE: "does not name its stimulus",
    Exactness.LOOSE: "is defined otherwise",
}

# Share of the rows over which two columns must agree, and how closely.
_AGREEING_SHARE = 0.95
_AGREEMENT = 1e-3


@dataclass(frozen=True)
class FeatureChoice:
    """Chooses the column or difference that gives each feature of a layout."""

    layout: Layout
    #: By feature, the columns that may give it, those that say so most exactly first.
    fitted: dict[str, list[Fitted]]
    refused: dict[str, Reason]  # column to why; those that are not chosen are added
    unused: dict[str, Reason]

    def choose(self) -> dict[str, Taken]:
        """What gives every feature that is given."""
        best = {name: self._best(name, options) for name, options in self.fitted.items()}
        direct = {name: found for name, found in best.items() if found is not None}
        differences = self._differences(direct)
        taken: dict[str, Taken] = {}
        for name in self.layout.feature_names:
            options = [found for found in (differences.get(name), direct.get(name)) if found]
            contradicted = name in best and name not in direct
            if options and not contradicted:
                chosen = max(options, key=lambda option: option.level)
                taken[name] = chosen.taken
                if chosen is not options[-1]:
                    self._yields(options[-1], chosen, name)
        self._account_for_rest(direct, taken)
        return taken

    def _account_for_rest(self, direct: dict[str, Fitted], taken: dict[str, Taken]) -> None:
        """Say why the columns give nothing that give nothing."""
        used = {column for found in taken.values() for column in found.columns}
        for column in used & set(self.unused):
            del self.unused[column]
        for name, found in direct.items():
            if found.column not in used | set(self.unused) | set(self.refused):
                self.unused[found.column] = Reason(self._why_spare(name, taken))

    def _why_spare(self, name: str, taken: dict[str, Taken]) -> str:
        """Why a potential that is understood gives nothing."""
        stem, stimulus = split_stimulus(name)
        if stem not in ABSOLUTE:
            return f"not in layout '{self.layout.name}'"
        delta = f"{ABSOLUTE[stem]}_{stimulus}"
        if delta in taken:
            return f"{taken[delta].source} gives {delta} more exactly"
        return f"an absolute potential; {delta} needs the threshold of the same stimulus as well"

    def _best(self, name: str, options: list[Fitted]) -> Fitted | None:
        """The column that gives a feature; None if equally exact ones contradict each other."""
        first = options[0]
        top = [option for option in options if option.level == first.level]
        lower = options[len(top) :]
        if all(_agree(first.numbers, option.numbers) for option in top[1:]):
            for option in lower:
                self._yields(option, first, name)
            same = Reason(f"gives {name} with the same values as '{first.column}'")
            self.unused.update((option.column, same) for option in top[1:])
            return first
        columns = [option.column for option in top]
        for column in columns:
            others = " and ".join(f"'{other}'" for other in columns if other != column)
            self.refused[column] = Reason(
                f"{others} also gives {name}, with other values",
                f"write {entry(column, name)} to take this one, or {entry(column, 'ignore')}",
            )
        exact = Reason(f"{' and '.join(columns)} say more exactly that they give {name}")
        self.unused.update((option.column, exact) for option in lower)
        return None

    def _yields(self, lower: Fitted, best: Fitted, name: str) -> None:
        why = _WHY_LOWER.get(lower.level, "is named less exactly")
        self.unused[lower.column] = Reason(
            f"{name} is given by {best.taken.source}, this column {why}"
        )

    def _differences(self, direct: dict[str, Fitted]) -> dict[str, Fitted]:
        """Potentials less the threshold of the same stimulus."""
        found: dict[str, Fitted] = {}
        for name, potential in direct.items():
            stem, stimulus = split_stimulus(name)
            feature = f"{ABSOLUTE[stem]}_{stimulus}" if stem in ABSOLUTE else None
            threshold = self._threshold(stimulus, potential, direct)
            if feature in self.layout.feature_names and threshold is not None:
                difference = self._difference(feature, potential, threshold)
                if difference is not None:
                    found[feature] = difference
        return found

    def _threshold(
        self, stimulus: str, potential: Fitted, direct: dict[str, Fitted]
    ) -> Fitted | None:
        """The threshold of the same stimulus as a potential."""
        name = f"threshold_v_{stimulus}"
        if potential.level > Exactness.BARE:
            threshold = direct.get(name)
            named = threshold is not None and threshold.level > Exactness.BARE
            return threshold if named else None
        # It does not name its stimulus, so both are of the same only if neither does.
        for option in self.fitted.get(name, []):
            if option.level <= Exactness.BARE and option.column not in self.refused:
                return option
        return None

    def _difference(self, feature: str, first: Fitted, second: Fitted) -> Fitted | None:
        """One potential less another; None, and refused, if the values cannot be."""
        a, b = first.taken, second.taken
        if {a.operation, b.operation} != {"plain"}:
            return None
        allowed = range_of(feature)
        values = first.numbers - second.numbers
        signs = [*a.signs, *b.signs]
        if np.isfinite(values).any() and not allowed.plausible(values):
            if not (first.sure and second.sure and allowed.possible(values)):
                self.refused[first.column] = Reason(
                    f"less '{second.column}' its median would be {np.nanmedian(values):g} mV of "
                    f"{feature}, outside {allowed.expected('mV')}; correct the "
                    f"units, or write {entry(first.column, 'ignore')}"
                )
                return None
            signs.append(allowed.unusual(values, "mV"))
        taken = replace(
            a,
            feature=feature,
            columns=(first.column, second.column),
            unit=a.unit if a.unit == b.unit else f"{a.unit} and {b.unit}",
            signs=tuple(dict.fromkeys(signs)),
            operation="difference",
            our_unit=features()[feature].unit,
            second_factor=b.factor,
            marks=a.marks + b.marks,
            no_zero=a.no_zero + b.no_zero,
            limits=(allowed.least, allowed.most),
            parts=(a, b),
        )
        bare = first.level <= Exactness.BARE
        return Fitted(taken, values, Exactness.LOOSE if bare else Exactness.DIFFERENCE)


def _agree(first: Numbers, second: Numbers) -> bool:
    both = np.isfinite(first) & np.isfinite(second)
    if not both.any():
        return False
    close = np.isclose(first[both], second[both], rtol=_AGREEMENT, atol=1e-12)
    return bool(np.mean(close) >= _AGREEING_SHARE)
