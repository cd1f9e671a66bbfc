"""Which rows of a table are cells: not summaries, headings, headers again, nor single sweeps."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crosspatch.errors import CohortError
from crosspatch.tables.header import are_units
from crosspatch.tables.names import key, names, words

# Statistics of columns, as rows are called that hold them: in English, German, French, Spanish,
# Portuguese and Italian. The second ones may be names of cells too.
_STATISTIC = (
    r"mean|average|avg|median|s\.?e\.?m\.?|s\.d\.|s\.e\.|std\.?|st\.? ?dev\.?|stdev|stdv|"
    r"standard deviation|standard error|std\.? ?(dev|err)\.?|variance|quartile|percentile|iqr|"
    r"coefficient of variation|95 ?% ?ci|p[- ]?value|minimum|maximum|"
    r"mittelwert|durchschnitt|standardabweichung|standardfehler|stabw\.?|anzahl|summe|gesamt|"
    r"moyenne|m[eé]diane|[eé]cart[- ]type|erreur standard|erreur type|"
    r"promedio|mediana|desviaci[oó]n (est[aá]ndar|t[ií]pica)|error est[aá]ndar|"
    r"m[eé]dia|desvio padr[aã]o|erro padr[aã]o|deviazione standard|errore standard|dev\. ?st\."
)
_SHORT = r"n|p|se|sd|cv|max|min|sum|total|count|range|ave|ci|q1|q3"
_ONE = rf"({_STATISTIC}|{_SHORT})\.?"
_BEFORE = r"((grand|overall|group|population|arithmetic|geometric|total|sample) )?"
_AFTER = r"( of the mean)?(\s*\(.*\))?"
#: Names that are nothing but statistics, such as "Mean ± SEM (n = 12)" or "N = 12".
_SUMMARY = re.compile(
    rf"[*\s]*{_BEFORE}{_ONE}(\s*(±|\+/-|\+-|/|&|,|and|und)\s*{_ONE})*{_AFTER}"
    r"\s*([:=]\s*[\d.,]*)?\s*"
)
# Names that begin or end with one, such as "Mean WT".
_OF_GROUP = re.compile(
    rf"(?P<a>{_STATISTIC}|n|sd|se)[ _:-]+(?P<b>.+)|(?P<c>.+)[ _:-]+(?P<d>{_STATISTIC}|n|sd|se)"
)
# Columns that count what there are several of in a cell.
_SWEEP_WORDS = {"sweep", "sweeps", "trace", "episode", "sweepnum", "sweepnumber", "stimulus"}
_SWEEP_KEYS = {
    *("step", "stepnumber", "currentstep", "stimamp", "stimamplitude", "injectedcurrent"),
    *("currentinjection", "current", "currentinjected", "iinj", "apnumber", "apindex", "ap"),
}
# Rows by which the names of cells are known.
_SAMPLE = 1000
# Rows of a cell on average, from which its rows are taken for sweeps.
_SWEEPS = 3


class CellRows:
    """Tells cells from other rows, as it was found out on the first rows of a table."""

    def __init__(self, first: pd.DataFrame):
        self._headers = [str(name).strip() for name in first.columns]
        self.id_place = _id_place(self._headers)
        first = first.iloc[:_SAMPLE]
        self._labels = [
            place
            for place in range(len(self._headers))
            if place == self.id_place or _is_text(first.iloc[:, place])
        ]
        whole = first.notna().sum(axis=1).to_numpy() > 1
        named = list(filter(None, itertools.compress(self._ids(first), whole)))
        self._hashes = sum(text.startswith("#") for text in named) * 2 > len(named)
        others = [text for text in named if not _SUMMARY.fullmatch(text.lower())]
        self._shapes = set(map(_shape, others))
        #: Whether cells are called by letters, so that "n" and "SD" may be two of them.
        self._by_letters = sum(len(text) <= 3 and text.isalpha() for text in others) >= 3

    def left_out(self, chunk: pd.DataFrame) -> dict[int, str]:
        """By place, what rows are that are no cells, in words."""
        if not self._headers:
            return {}
        found = self._headers_again(chunk) | self._almost_empty(chunk) | self._comments(chunk)
        return self._summaries(chunk) | found

    def _summaries(self, chunk: pd.DataFrame) -> dict[int, str]:
        """Rows that are called by a statistic, where the cells' names or a label would stand."""
        found: dict[int, str] = {}
        groups: dict[str, dict[int, str]] = defaultdict(dict)
        for place in self._labels:
            for row, text, count in self._statistics(chunk, place):
                if _SUMMARY.fullmatch(text):
                    often = count > max(2, len(chunk) / 4)
                    if not (often or self._may_be_cell(chunk, row, text, place)):
                        found[row] = "summaries"
                elif (part := _statistic_and_group(text)) is not None:
                    groups[part[1]][row] = part[0]
        for members in groups.values():
            if len(set(members.values())) > 1:
                found |= dict.fromkeys(members, "summaries")
        return found

    def _statistics(self, chunk: pd.DataFrame, place: int) -> Iterator[tuple[int, str, int]]:
        """Rows whose text in a column has a statistic in it, and how many have that text."""
        here = _lower(chunk, place)
        likely = pc.match_substring_regex(here, rf"(^|[^a-z])({_STATISTIC}|{_SHORT})($|[^a-z])")
        said = {row: here[row].as_py() for row in _rows(likely)}
        counts = Counter(said.values())
        ids = self._ids(chunk) if said and place != self.id_place else [""] * len(chunk)
        for row, text in said.items():
            if not ids[row]:  # else a cell with such a label, as a strain "SD"
                yield row, text, counts[text]

    def _may_be_cell(self, chunk: pd.DataFrame, row: int, text: str, place: int) -> bool:
        """Whether a short name may be that of a cell, as its values are not all one count."""
        if not re.fullmatch(_SHORT, text):
            return False
        if place != self.id_place:
            return True
        if not self._by_letters:
            return False
        numbers = pd.to_numeric(chunk.iloc[row], errors="coerce").dropna()
        return not (len(numbers) > 1 and numbers.nunique() <= 2 and (numbers % 1 == 0).all())

    def _headers_again(self, chunk: pd.DataFrame) -> dict[int, str]:
        """Rows that have the names of the columns again, with the units below them."""
        found: dict[int, str] = {}
        place = next((k for k, name in enumerate(self._headers) if name), 0)
        again = pc.equal(_lower(chunk, place), self._headers[place].lower())
        for row in _rows(again):
            if self._is_header(_fields(chunk, row)):
                found[row] = "the header again"
                below = row + 1
                if below < len(chunk) and are_units(_fields(chunk, below)):
                    found[below] = "the header again"
        return found

    def _is_header(self, fields: list[str]) -> bool:
        filled = [(name, text) for name, text in zip(self._headers, fields, strict=True) if text]
        same = sum(name.startswith(text) for name, text in filled)
        return same >= 2 and same * 2 >= len(filled)

    def _almost_empty(self, chunk: pd.DataFrame) -> dict[int, str]:
        """Rows that hold a single text that is not called as the cells are: headings, notes."""
        found: dict[int, str] = {}
        if len(self._headers) < 3:
            return found
        alone = np.flatnonzero(chunk.notna().sum(axis=1).to_numpy() == 1)
        for row in map(int, alone):
            fields = _fields(chunk, row)
            place = next((k for k, text in enumerate(fields) if text), None)
            if place is None or re.fullmatch(r"[\d\s.,+-]*", fields[place]):
                continue
            if place != self.id_place or _shape(fields[place]) not in self._shapes:
                found[row] = "headings or notes"
        return found

    def _comments(self, chunk: pd.DataFrame) -> dict[int, str]:
        if self._hashes:
            return {}
        return dict.fromkeys(_rows(pc.starts_with(_lower(chunk, 0), "#")), "comments")

    def _ids(self, chunk: pd.DataFrame) -> list[str]:
        place = self.id_place
        return [""] * len(chunk) if place is None else texts_of(chunk.iloc[:, place])

    def name(self, chunk: pd.DataFrame, row: int) -> str:
        """What a row is called, for a message."""
        own = [*self._ids(chunk.iloc[row : row + 1]), *_fields(chunk, row)]
        return next(filter(None, own), "")[:40]


def _statistic_and_group(text: str) -> tuple[str, str] | None:
    part = _OF_GROUP.fullmatch(text)
    return None if part is None else (part["a"] or part["d"], part["b"] or part["c"])


def said_of(left_out: dict[str, list[str]]) -> str:
    """What is said of rows that are no cells: by what they are, their names."""
    parts = []
    for what, called in left_out.items():
        some = ", ".join(f"'{name}'" for name in dict.fromkeys(called[:3]))
        number = f"{len(called)} are " if len(left_out) > 1 else ""
        parts.append(f"{number}{what} ({some}{', …' if len(called) > 3 else ''})")
    count = sum(map(len, left_out.values()))
    rows = "1 row is no cell and is" if count == 1 else f"{count} rows are no cells and are"
    return f"{rows} left out: {'; '.join(parts)}"


def statistic_of(values: NDArray[np.float32], others: NDArray[np.float32]) -> str:
    """Which statistic of others a row's values are; empty if none."""
    there = np.isfinite(values) & (np.isfinite(others).sum(axis=0) > 1)
    if there.sum() < 3 or len(others) < 3:
        return ""
    others, values = others[:, there], values[there]
    deviation = np.nanstd(others, axis=0, ddof=1)
    counts = np.isfinite(others).sum(axis=0)
    found = {
        "means": np.nanmean(others, axis=0),
        "medians": np.nanmedian(others, axis=0),
        "deviations": deviation,
        "errors": deviation / np.sqrt(counts),
        "minima": np.nanmin(others, axis=0),
        "maxima": np.nanmax(others, axis=0),
    }
    close = partial(np.isclose, values, rtol=2e-3, atol=0)
    return next((what for what, those in found.items() if close(those).all()), "")


def require_cells(path: object, first: pd.DataFrame, ignored: Sequence[str] = ()) -> None:
    """Refuse a table of one row per sweep; columns that are ignored say nothing of that."""
    headers = [str(name) for name in first.columns]
    place = _sure_id_place(headers, first)
    ids = None if place is None else pd.Series(texts_of(first.iloc[:, place]))
    for k, header in enumerate(headers):
        if not _counts_sweeps(header) or k == place or header in ignored:
            continue
        which = first.iloc[:, k].reset_index(drop=True)
        stands = _counted(which) if ids is None else _repeated(which, ids)
        if stands:
            raise CohortError(
                f"{path}: it seems to have one row per sweep, not per cell: {stands} that differ "
                f"in column '{header}'",
                "give one row per cell, or say in {columns} mapping.yaml to ignore that column",
            )


def _counted(which: pd.Series) -> str:
    """What is said of rows that a column counts one by one; empty if it does not."""
    counting = pd.to_numeric(which, errors="coerce")
    several = len(which) >= _SWEEPS and bool((counting.diff().iloc[1:] == 1).all())
    return f"its {len(which)} rows count one by one" if several else ""


def _repeated(which: pd.Series, ids: pd.Series) -> str:
    """What is said of cells that have several rows, of which a column tells each; else empty."""
    ids = ids.where(ids != "").ffill()  # of merged fields only the first is filled
    per_cell = which.groupby(ids.to_numpy()).agg(["size", "nunique"])
    if per_cell.empty or per_cell["size"].mean() < _SWEEPS:
        return ""
    if (per_cell["nunique"] >= 0.9 * per_cell["size"]).mean() <= 0.5:
        return ""
    return f"cell '{per_cell['size'].idxmax()}' has {per_cell['size'].max()} rows"


def _counts_sweeps(header: str) -> bool:
    """Whether a column counts what there are several of in a cell."""
    found = words(re.sub(r"[(\[].*?[)\]]", " ", header))
    bare = re.sub("(pa|na)$", "", key(found))
    return not _SWEEP_WORDS.isdisjoint(found) or bare in _SWEEP_KEYS


def _sure_id_place(headers: Sequence[str], first: pd.DataFrame) -> int | None:
    """The column of cell ids, if its name or its values tell."""
    place = _id_place(headers)
    if place is None or key(words(headers[place])) in names().cell_id:
        return place
    return place if _is_text(first.iloc[:200, place]) else None


def _id_place(headers: Sequence[str]) -> int | None:
    """The column of cell ids; without a known name the first, unless it is of labels."""
    by_key: dict[str, int] = {}
    for place, header in enumerate(headers):
        by_key.setdefault(key(words(header)), place)
    found = (by_key[name] for name in names().cell_id if name in by_key)
    labels = not headers or not names().label.isdisjoint(words(headers[0]))
    return next(found, None if labels else 0)


def _is_text(series: pd.Series) -> bool:
    texts = [v.strip() for v in series if isinstance(v, str) and v.strip()]
    return (
        sum(not re.match(r"[\d+\-.<>~\u2212\u2013]", text) for text in texts) * 2 > len(texts) > 0
    )


def _shape(text: str) -> str:
    """A name with its letters and digits made alike."""
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", text.strip()))


def _rows(there: pa.BooleanArray) -> list[int]:
    """Places of what is true."""
    mask = there.fill_null(False).to_numpy(zero_copy_only=False)
    return [int(row) for row in np.flatnonzero(mask)]


def _fields(chunk: pd.DataFrame, row: int) -> list[str]:
    return ["" if pd.isna(value) else str(value).strip() for value in chunk.iloc[row]]


def _is_arrow(column: pd.Series) -> bool:
    return column.dtype == pd.ArrowDtype(pa.string())


def texts_of(column: pd.Series) -> list[str]:
    """Cell ids as text, empty where there is none."""
    if _is_arrow(column):
        return pc.utf8_trim_whitespace(pa.array(column.array)).fill_null("").to_pylist()
    return [_text(value) for value in column]


def _text(value: object) -> str:
    """A cell id as text; a whole number that was stored as a float has no point."""
    if value is None or value != value or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _lower(chunk: pd.DataFrame, place: int) -> pa.Array:
    column = chunk.iloc[:, place]
    if not _is_arrow(column):
        return pa.array([text.lower() for text in texts_of(column)], pa.string())
    return pc.utf8_lower(pc.utf8_trim_whitespace(pa.array(column.array)))
