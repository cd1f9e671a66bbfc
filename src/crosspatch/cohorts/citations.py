"""What to cite: the works and data that a result was made of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from crosspatch.cohorts import table
from crosspatch.cohorts.dataset import datasets
from crosspatch.cohorts.download import dandisets
from crosspatch.errors import CohortError

#: Cited with every result: the program and the method it implements.
_ALWAYS = ("crosspatch", "schwider2026")
#: Where both species are compared, their types are aligned after this.
_ALIGNMENT = "hodge2019"
_FEATURES = "ipfx"
_HEAD = 64 * 1024  #: characters read of a csv, which may be large


@cache
def entries() -> dict[str, str]:
    """BibTeX entries by key."""
    text = (files("crosspatch.cohorts") / "data" / "references.bib").read_text(encoding="utf-8")
    text = text.replace("{VERSION}", f"{{{version('crosspatch')}}}")
    found = re.findall(r"^@\w+\{(\w+),.*?^\}", text, flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"\n(?=@)", text.strip())
    return dict(zip(found, (part.strip() for part in parts), strict=True))


def bibtex(result: str | Path | None = None) -> str:
    """BibTeX of what a result used, or of everything.

    A result is a cohort table, predictions (csv or h5ad), a folder of results, or a model; a
    `CohortError` if it is none of these.
    """
    keys = list(entries()) if result is None else cited_by(Path(result))
    return "\n\n".join(entries()[key] for key in keys)


def cited_by(result: Path) -> list[str]:
    """Keys of what a result used, see `bibtex`."""
    names = set(_names(result))
    keys = list(_ALWAYS)
    used = [each for each in datasets().values() if each.name in names]
    keys += [key for each in used for key in each.cite]
    for number, dandiset in dandisets().items():
        if any(name.startswith(f"dandi:{number}") for name in names):
            keys += dandiset.cite
    if len({each.species for each in used}) > 1:
        keys.append(_ALIGNMENT)
    return list(dict.fromkeys([*keys, _FEATURES]))


def _names(result: Path) -> Iterator[str]:
    """Datasets and sources that a result names."""
    if result.is_dir():
        for name in ("settings.json", "model.json"):
            if (result / name).is_file():
                yield from _in_json(result / name)
                return
        raise CohortError(f"{result} is neither a folder of results nor a model")
    if not result.is_file():
        raise CohortError(f"{result} does not exist")
    if result.suffix == ".h5ad":
        yield from _in_h5ad(result)
        return
    if result.suffix == ".csv":
        with result.open(encoding="utf-8", errors="replace") as file:
            head = file.read(_HEAD)
        if head.startswith("# crosspatch"):
            lines = [line for line in head.splitlines() if line.startswith("#")]
            # The longest first: a name may begin with another.
            known = "|".join(map(re.escape, sorted(datasets(), key=len, reverse=True)))
            yield from re.findall(rf"{known}|dandi:\d{{6}}", "\n".join(lines))
            return
    raise CohortError(
        f"{result} is no result of crosspatch; give a cohort table or predictions (.h5ad, .csv), a "
        "folder of results, or a model"
    )


def _in_h5ad(file: Path) -> Iterator[str]:
    import anndata

    try:
        found = anndata.read_h5ad(file, backed="r")
    except Exception as error:  # anndata raises many kinds for files that are not its own
        raise CohortError(f"{file} cannot be read as h5ad: {error}") from error
    try:
        if "prediction" in found.uns:
            yield from _strings(json.loads(str(found.uns["prediction"])))
        elif "crosspatch" in found.uns:
            yield from map(str, table.head_of(found).sources)
            if "dataset" in found.obs:
                yield from found.obs["dataset"].astype(str).unique()
        else:
            raise CohortError(f"{file} was not written by crosspatch")
    finally:
        found.file.close()


def _in_json(file: Path) -> Iterator[str]:
    try:
        yield from _strings(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise CohortError(f"{file} cannot be read: {error}") from error


def _strings(value: object) -> Iterator[str]:
    """Every text in a tree of JSON, keys too."""
    if isinstance(value, dict):
        yield from map(str, value)
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, str):
        yield value
