"""The cortical layer of a cell: as people write it, and as models take it, in order of depth."""

from __future__ import annotations

import math
import re

from crosspatch.errors import CohortError

_NUMBER = r"(?i:[1-6]|VI|IV|V|I{1,3})"
# A layer, or two at whose border a cell lies: "5", "VI", "6a", "2/3", "II-III", "L2 to L3", "23".
_LAYERS = (
    rf"(?P<upper>{_NUMBER})(?i:[a-c]?)"
    r"(?:(?:(?i:\s*(?:[/\\–&+,_-]|\bto\b|\band\b)\s*(?:L|layer\s*)?)|(?<=2)(?=3)|(?<=5)(?=6))"
    rf"(?P<lower>{_NUMBER})(?i:[a-c]?))?"
)
_END = r"(?![A-Za-z0-9]|\.\d)"
_BARE = re.compile(rf"(?i:(?:cortical\s*)?layers?[\s_.:-]*|L[\s_.-]*)?{_LAYERS}(?:\.0+)?")
_BETWEEN = re.compile(r"(?i:L|layer\s*)?([1-5])\.50*")
# Within other words: "V1, layer 2-3", "TCx_L5", the Allen Institute's "VISp6a". Not "CA1" or "M1".
_CORTEX = r"(?:VIS|SS|MO|AUD|RSP|ACA|ORB|PTLp|TEa|ECT|FRP)[A-Za-z]*(?:-[a-z]+)?(?=\d)"
_MENTIONED = re.compile(
    rf"(?<![A-Za-z0-9])(?:(?i:layers?)[\s_.:-]*|L[_-]?(?=\d)|{_CORTEX}){_LAYERS}{_END}"
)
# A layer with one of these is a guess, or one of several.
_DOUBT = re.compile(
    r"[?~≈]|\b(?:or|not|ish|maybe|perhaps|likely|putative|unclear|uncertain|unsure"
    r"|(?:proba|possi|presuma)bl[ey]|approx\w*)\b",
    re.IGNORECASE,
)
_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}


def layer_depth(said: object) -> float:
    """The layer that a field for it names: 1 to 6, halfway at a border (2/3 is 2.5), else NaN.

    Understood are "5", "L5", "layer 2-3", "II/III", "6a", "VISp5", "2.5" and the like, and not
    what is in doubt, as "L4?".
    """
    text = str(said).strip()
    if between := _BETWEEN.fullmatch(text):
        return int(between[1]) + 0.5
    bare = _BARE.fullmatch(text)
    depth = layer_in(text) if bare is None else _depth(bare)
    return depth if math.isfinite(depth) else math.nan


def layer_in(text: str) -> float:
    """The one layer that a text about a place names, such as "V1, layer 5"; NaN for none.

    A number alone is none, as it may be of anything. It is infinite where the layer is not
    understood: several, or one in doubt.
    """
    found = {_depth(each) for each in _MENTIONED.finditer(text)}
    if not found:
        return math.nan
    depth = found.pop()
    return math.inf if found or math.isnan(depth) or _DOUBT.search(text) else depth


def _depth(found: re.Match[str]) -> float:
    both = found["upper"], found["lower"] or found["upper"]
    upper, lower = (_ROMAN.get(each.upper()) or int(each) for each in both)
    return (upper + lower) / 2 if lower - upper in (0, 1) else math.nan


def layer_name(depth: float) -> str:
    """A layer as it is mostly written, ``2/3`` for 2.5; empty for none."""
    if not math.isfinite(depth):
        return ""
    return f"{depth:g}" if depth == int(depth) else f"{int(depth)}/{int(depth) + 1}"


def require_layer(said: str | float | None) -> float:
    """The layer that a user says all cells are of, NaN for None; a CohortError if it is none."""
    depth = math.nan if said is None else layer_depth(said)
    if said is not None and math.isnan(depth):
        raise CohortError(f"'{said}' is not a cortical layer", "give {layer} 1, 2/3, 5, 6a or such")
    return depth
