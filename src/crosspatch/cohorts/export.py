"""Cohort tables for other programs: csv, parquet, h5ad, zarr, each with where it came from."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from crosspatch.cohorts import table
from crosspatch.errors import CohortError
from crosspatch.writing import replacing

#: Endings of the files that can be written.
FORMATS = (".csv", ".parquet", ".h5ad", ".zarr")


def require_format(file: Path) -> None:
    """Refuse a name of a file to be written of which the ending is none of `FORMATS`."""
    if file.suffix.lower() not in FORMATS:
        raise CohortError(f"{file}: the ending says the format; use {', '.join(FORMATS)}")


def export(cohort: anndata.AnnData, file: Path) -> None:
    """Write a cohort table; the ending of the file's name says the format.

    csv and parquet have one row per cell: ``cell_id``, the columns of obs, the features. Origin,
    versions and units stand in commented lines at the head of a csv, and under ``crosspatch`` in
    the metadata of a parquet file. A `CohortError` if the table is not valid, the ending is
    unknown, or the file cannot be written.
    """
    require_format(file)
    table.require_valid(cohort, "the table")
    ending = file.suffix.lower()
    if ending == ".h5ad":
        table.write(cohort, file)
        return
    stores = ("zarr.json", ".zgroup")  # of versions 3 and 2
    other = file.exists() and not any((file / name).is_file() for name in stores)
    if ending == ".zarr" and other:
        raise CohortError(f"{file} is there and is no zarr store; give another name")
    with replacing(file, CohortError) as temporary:
        if ending == ".zarr":
            _write_zarr(cohort, temporary, file)
        elif ending == ".csv":
            _write_csv(cohort, temporary)
        else:
            _write_parquet(cohort, temporary)


def origin(cohort: anndata.AnnData) -> dict[str, object]:
    """Where a table came from, as plain values: version, layout, units, sources and so on."""
    head = table.head_of(cohort)
    extraction = cohort.uns["crosspatch"].get("extraction")
    return {
        "crosspatch": version("crosspatch"),
        "datasets": sorted(set(cohort.obs["dataset"].dropna().astype(str))),
        "layout": table.layout_of(cohort).name,
        "taxonomy": head.taxonomy,
        "verified": head.verified,
        "extraction": None if extraction is None else json.loads(str(extraction)),
        "joined": head.joined,
        "dropped": head.dropped,
        "units": {str(name): str(unit) for name, unit in cohort.var["unit"].items()},
        "sources": head.sources,
    }


def _rows(cohort: anndata.AnnData) -> pd.DataFrame:
    cells = cohort.obs.copy()
    cells.index.name = "cell_id"
    twice = sorted(set(cells.columns) & set(cohort.var_names))
    if twice:
        raise CohortError(f"'{twice[0]}' is both a column of cells and a feature; rename one")
    values = pd.DataFrame(np.asarray(cohort.X), index=cells.index, columns=cohort.var_names)
    return pd.concat([cells, values], axis=1).reset_index()


def _write_csv(cohort: anndata.AnnData, file: Path) -> None:
    about = origin(cohort)
    del about["sources"]
    lines = [f"# crosspatch {about.pop('crosspatch')}"]
    lines += [f"# {name}: {json.dumps(value, sort_keys=True)}" for name, value in about.items()]
    sources = table.head_of(cohort).sources
    # Of recordings, every row says its own.
    if "recording_source" not in cohort.obs:
        lines += [f"# source: {name} sha256 {digest}" for name, digest in sources.items()]
    with file.open("w", encoding="utf-8", newline="") as stream:
        stream.write("\n".join(line.replace("\n", " ") for line in lines) + "\n")
        _rows(cohort).to_csv(stream, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def _write_parquet(cohort: anndata.AnnData, file: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = pyarrow.Table.from_pandas(_rows(cohort), preserve_index=False)
    about = {b"crosspatch": json.dumps(origin(cohort)).encode()}
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), **about})
    pyarrow.parquet.write_table(rows, file)


def _write_zarr(cohort: anndata.AnnData, temporary: Path, file: Path) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):  # anndata's, about its next version
            cohort.write_zarr(temporary)
        if file.exists():
            shutil.rmtree(file)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
