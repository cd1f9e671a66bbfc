"""The mapping file, in which a user says what the columns of a table are."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import yaml

from crosspatch.errors import CohortError, in_words
from crosspatch.tables.names import features
from crosspatch.tables.units import DIMENSION, UNITS, dimension_of, parse_unit

#: What a mapping file may say of a column besides a feature.
SPECIAL = ("ignore", "cell_id", "species", "layer")

#: How a mapping file may say that a feature is computed.
OPERATIONS = ("plain", "negated", "reciprocal", "one_minus", "one_minus_reciprocal")

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


@dataclass(frozen=True)
class Override:
    """What a mapping file says of a column."""

    target: str  # a feature, an absolute potential such as ``peak_v_rheo``, or one of `SPECIAL`
    unit: str | None = None  # unit of the column; taken from its name or its values if not given
    operation: str | None = None  # one of `OPERATIONS`
    #: Who says so, where it is not the mapping: ``the answer``, of a question asked. If the values
    #: contradict it, the column is refused; what a mapping says would be an error.
    source: str | None = None


@dataclass(frozen=True)
class Overrides:
    """Contents of a mapping file: column name to what it is."""

    name: str
    columns: dict[str, Override]


def entry(column: str, feature: str, unit: str | None = None) -> str:
    """What to write where to say what a column is."""
    return f"{line(column, feature, unit)} in the mapping file"


def line(column: str, feature: str, unit: str | None = None) -> str:
    """The line of a mapping file that says what a column is."""
    escaped = column.translate(_ESCAPES)
    quoted = '"%"' if unit == "%" else unit
    what = f"{{feature: {feature}, unit: {quoted}}}" if unit else feature
    return f"""'"{escaped}": {what}'"""


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, which would otherwise silently hide the first."""


def _unique_keys(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[object, object]:
    pairs = [
        (loader.construct_object(key, deep=True), loader.construct_object(value, deep=True))
        for key, value in node.value
    ]
    for index, (key, _) in enumerate(pairs):
        if any(key == other for other, _ in pairs[:index]):
            raise CohortError(f"column '{key}' has two entries; keep one")
    return dict(pairs)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)


def read_mapping(file: str | Path) -> Overrides:
    """Read a mapping file: YAML with one entry per column.

    An entry is ``"Rin": input_resistance``, ``"Rin": {feature: input_resistance, unit: GOhm}``,
    ``"Notes": ignore``, ``"Cell": cell_id``, ``"Organism": species`` or ``"Depth": layer``;
    ``operation`` may be ``plain``, ``negated``, ``reciprocal``, ``one_minus`` or
    ``one_minus_reciprocal`` (the sag where the column has the peak over the steady state). A
    CohortError if the file is missing or not YAML, or names an unknown feature or unit, or a
    feature twice.
    """
    file = Path(file)
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=_Loader)  # noqa: S506
    except OSError as error:
        raise CohortError(f"{file} cannot be read: {error.strerror}") from error
    except CohortError as error:
        raise CohortError(f"{file}: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise CohortError(f"{file} is not YAML: {in_words(error)}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise CohortError(
            f"{file} must have one entry a column, such as '\"Rin\": input_resistance'; it holds "
            f"a {type(content).__name__}"
        )
    columns: dict[str, Override] = {}
    for column, said in content.items():
        where = f"{file}, column '{column}'"
        if not isinstance(column, str | int | float) or isinstance(column, bool):
            raise CohortError(f"{where}: write the column's name in quotes")
        columns[str(column)] = _override(said, where)
    mapping = Overrides(str(file), columns)
    require_once(mapping)
    return mapping


def _override(said: object, where: str) -> Override:
    """One entry of a mapping file."""
    target, unit, operation = _fields(said, where)
    if target in SPECIAL:
        if unit is not None or operation is not None:
            raise CohortError(f"{where}: '{target}' has no unit and no operation; leave them out")
        return Override(target)
    if target not in features():
        near = difflib.get_close_matches(target, features(), n=1)
        hint = f"; the nearest is '{near[0]}'" if near else ""
        raise CohortError(f"{where}: there is no feature '{target}'{hint}")
    if operation not in (None, *OPERATIONS):
        known = ", ".join(OPERATIONS)
        raise CohortError(f"{where}: there is no operation '{operation}'; use one of {known}")
    parsed = None if unit is None else parse_unit(str(unit))
    if unit is not None and parsed is None:
        units = ", ".join(UNITS[dimension_of(features()[target].unit)])
        raise CohortError(f"{where}: there is no unit '{unit}'; use one of {units}")
    override = Override(target, parsed, operation)
    _require_dimension(override, where)
    return override


def _fields(said: object, where: str) -> tuple[str, object, str | None]:
    """What an entry says of feature, unit and operation."""
    if isinstance(said, str):
        said = {"feature": said}
    keys = {"feature", "unit", "operation"}
    if not isinstance(said, dict) or "feature" not in said or not set(said) <= keys:
        raise CohortError(
            f"{where}: write a feature, 'ignore', 'cell_id', 'species', 'layer', or "
            "'{feature: input_resistance, unit: GOhm}'"
        )
    target, operation = said["feature"], said.get("operation")
    if not isinstance(target, str):
        raise CohortError(f"{where}: write the name of one feature, not '{target}'")
    return target, said.get("unit"), operation


def require_known(override: Override, where: str) -> None:
    """Refuse an override of which feature or unit do not exist or do not go together."""
    if override.target in SPECIAL:
        return
    if override.target not in features():
        raise CohortError(f"{where}: there is no feature '{override.target}'")
    if override.unit not in (None, *DIMENSION):
        raise CohortError(f"{where}: there is no unit '{override.unit}'")
    _require_dimension(override, where)


def _require_dimension(override: Override, where: str) -> None:
    """Refuse a unit of another dimension; of a rate, the reciprocal of a time may be given."""
    if override.unit is None:
        return
    ours = features()[override.target].unit
    dimension = dimension_of(ours, override.operation or "plain")
    allowed = {dimension}
    if override.operation is None:
        allowed.add(dimension_of(ours, "reciprocal"))
    if DIMENSION[override.unit] not in allowed:
        raise CohortError(
            f"{where}: {override.unit} is no unit of {override.target}, a {dimension}; use one of "
            f"{', '.join(UNITS[dimension])}"
        )


def require_once(mapping: Overrides) -> None:
    """Refuse a mapping in which two columns are the same."""
    seen: dict[str, str] = {}
    for column, override in mapping.columns.items():
        if override.target == "ignore":
            continue
        if override.target in seen:
            raise CohortError(
                f"{mapping.name}, column '{column}': '{override.target}' is already given by "
                f"column '{seen[override.target]}'; keep one of them"
            )
        seen[override.target] = column
