"""Files that are made to do harm: they unfold, nest, lie, and point at other files."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.features.made_files import write_small
from tests.recordings.made_files import write_abf2

HUGE = 10**12

# Tables


def gzip_of(block: bytes, times: int, before: bytes = b"") -> bytes:
    """A gzip file in which a block of bytes stands so many times; it is made of a few members."""
    member = gzip.compress(block, 9)
    return gzip.compress(before) + member * times


def gzip_zeros() -> bytes:
    """4 GiB of zero bytes."""
    return gzip_of(bytes(2**25), 128)


def gzip_one_line() -> bytes:
    """One line of 4 GiB, in fields of a fair length."""
    return gzip_of(b"123456789," * 3_200_000, 134, before=b"cell,Rin (MOhm)\n")


def gzip_one_field() -> bytes:
    """One field of 4 GiB."""
    return gzip_of(b"x" * 2**25, 128)


def gzip_wide() -> bytes:
    """A header of a million columns and as many rows as there is patience for."""
    header = ",".join(f"c{k}" for k in range(1_000_000)).encode()
    return gzip_of(b"1\n" * 2**23, 64, before=header + b"\n")


_SHEET = (
    b'<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/'
    b'main"><sheetData>%s</sheetData></worksheet>'
)


_TEXTS = (
    b'<Override PartName="/xl/sharedStrings.xml" ContentType="application/vnd.openxmlformats-'
    b'officedocument.spreadsheetml.sharedStrings+xml"/></Types>'
)


def xlsx(sheet: bytes | None = None, texts: bytes | None = None) -> bytes:
    """A workbook; `sheet` in place of its cells, and a list of texts."""
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["cell", "Rin (MOhm)", "text"])
    book.active.append(["a", 150.0, "text"])
    made = io.BytesIO()
    book.save(made)
    out = io.BytesIO()
    with (
        zipfile.ZipFile(made) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name == "xl/worksheets/sheet1.xml" and sheet is not None:
                content = sheet
            if name == "[Content_Types].xml" and texts is not None:
                content = content.replace(b"</Types>", _TEXTS)
            new.writestr(name, content)
        if texts is not None:
            new.writestr("xl/sharedStrings.xml", texts)
    return out.getvalue()


def xlsx_declares_gigabytes() -> bytes:
    """Its directory says that a sheet has 3.9 GiB."""
    return _resized(xlsx(), b"xl/worksheets/sheet1.xml", 0xFA000000)


def xlsx_lies() -> bytes:
    """Half a GiB of rows that the directory says are 2,000 bytes."""
    row = b"<row><c><v>1</v></c></row>"
    return _resized(xlsx(_SHEET % (row * (2**29 // len(row)))), b"xl/worksheets/sheet1.xml", 2000)


@cache
def xlsx_texts(length: int = 2**29) -> bytes:
    """Texts of so many bytes that no cell uses; they keep a process busy for long."""
    text = b"<si><t>a text of some length</t></si>"
    texts = (
        b'<?xml version="1.0"?><sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/'
        b'main">' + text * (length // len(text)) + b"</sst>"
    )
    return xlsx(texts=texts)


def xlsx_corners() -> bytes:
    """Two cells, in opposite corners of the largest sheet there can be."""
    return xlsx(
        _SHEET
        % (
            b'<row r="1"><c r="A1" t="inlineStr"><is><t>cell</t></is></c></row>'
            b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
        )
    )


def xlsx_laughs() -> bytes:
    """Entities of entities: three billion of them."""
    entities = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10 if k else "lol"}">' for k in range(10))
    return xlsx(
        f"<!DOCTYPE worksheet [{entities}]>".encode()
        + (_SHEET % b'<row><c t="inlineStr"><is><t>&l9;</t></is></c></row>').split(b"?>", 1)[1]
    )


def xlsx_entity(file: Path) -> bytes:
    """A text that is to be the content of a file of the machine."""
    return xlsx(
        f'<!DOCTYPE worksheet [<!ENTITY secret SYSTEM "{file.as_uri()}">]>'.encode()
        + (
            _SHEET
            % (
                b'<row><c t="inlineStr"><is><t>&secret;</t></is></c>'
                b'<c t="inlineStr"><is><t>Rin (MOhm)</t></is></c></row>'
                b'<row><c t="inlineStr"><is><t>&secret;</t></is></c><c><v>150</v></c></row>'
            )
        ).split(b"?>", 1)[1]
    )


def _resized(archive: bytes, name: bytes, size: int) -> bytes:
    """An archive in which a member has another size than it says, here and in the directory."""
    changed = bytearray(archive)
    for signature, size_at, name_at in ((b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)):
        at = changed.find(signature)
        while at >= 0:
            if changed[at + name_at : at + name_at + len(name)] == name:
                struct.pack_into("<I", changed, at + size_at, size)
            at = changed.find(signature, at + 4)
    return bytes(changed)


def _parquet(table: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def parquet_constant() -> bytes:
    """A hundred million rows of the same number, in a few kB."""
    out = io.BytesIO()
    table = pa.table({"Rin (MOhm)": np.full(10**7, 150.0), "tau (ms)": np.full(10**7, 12.0)})
    with pq.ParquetWriter(out, table.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(table)
    return out.getvalue()


def parquet_text() -> bytes:
    """20,000 times a text of 20 MB, which is stored once: 400 GB."""
    texts = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(20_000, dtype=np.int32)), pa.array(["x" * 20_000_000])
    )
    table = pa.table({"cell": texts, "Rin (MOhm)": np.full(20_000, 150.0)})
    return _parquet(table, compression="zstd", store_schema=False)


def parquet_damaged() -> bytes:
    """Its footer says that it is 2 GiB long."""
    content = bytearray(_parquet(pa.table({"Rin (MOhm)": [1.0]})))
    struct.pack_into("<I", content, len(content) - 8, 2**31 - 1)
    return bytes(content)


# HDF5


#: Changes an open file.
Change = Callable[[Any], object]


def _changed(path: Path, change: Change) -> bytes:
    with h5py.File(path, "r+") as file:
        change(file)
    content = path.read_bytes()
    path.unlink()
    return content


def h5ad(folder: Path, change: Change = lambda file: None) -> bytes:
    """A valid h5ad of two cells, and what is changed in it."""
    path = folder / "made.h5ad"
    cells = anndata.AnnData(
        X=np.array([[150.0, 12.0], [210.0, 20.0]]),
        obs=pd.DataFrame({"depth": [1.0, 2.0]}, index=["a", "b"]),
        var=pd.DataFrame(index=["Rin (MOhm)", "tau (ms)"]),
    )
    cells.write_h5ad(path)
    return _changed(path, change)


def nwb(folder: Path, change: Change = lambda file: None) -> bytes:
    """A small recording, and what is changed in it."""
    return _changed(write_small(folder / "made.nwb"), change)


def series(file: h5py.File) -> h5py.Group:
    """The first response of a small recording."""
    return next(iter(file["acquisition"].values()))


def matrix(file: h5py.File) -> None:
    """A million times a million numbers for the matrix of an h5ad."""
    del file["X"]
    data = file.create_dataset("X", (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")
    data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def no_samples(file: h5py.File) -> None:
    """Samples that are a link to themselves."""
    group = series(file)
    del group["data"]
    group["data"] = h5py.SoftLink(f"{group.name}/data")


def all_zeros(file: h5py.File, place: str) -> None:
    """Samples without end in every series of a place."""
    for each in file[place].values():
        zeros(each, "data")


def zeros(group: h5py.Group, name: str, count: int = HUGE, kind: Any = "i2") -> None:
    """A dataset of so many zeros in place of another; all but one chunk take no room."""
    attributes = dict(group[name].attrs) if name in group else {}
    if name in group:
        del group[name]
    data = group.create_dataset(name, (count,), kind, chunks=(2**20,), compression="gzip")
    data[: 2**20] = np.zeros(2**20, dtype=data.dtype)
    data.attrs.update(attributes)


def deep(group: h5py.Group, levels: int = 5000) -> None:
    """Groups in groups, as deep as a path can be."""
    for _ in range(levels):
        group = group.create_group("g")


def many_attributes(group: h5py.Group) -> None:
    """Attributes without end, and a long one."""
    for k in range(3000):
        group.attrs[f"attribute {k}"] = "x" * 300


def loops(group: h5py.Group) -> None:
    """Groups in themselves, and links that lead to one another."""
    group["self"] = group
    group["root"] = group.file["/"]
    group["there"] = h5py.SoftLink(f"{group.name}/back")
    group["back"] = h5py.SoftLink(f"{group.name}/there")


def elsewhere(group: h5py.Group, name: str, way: str, secret: Path) -> None:
    """A dataset in place of another whose values lie in another file.

    Parameters
    ----------
    way : str
        ``link``: an external link; ``raw``: raw bytes of any file; ``virtual``: a virtual dataset.
    secret : Path
        Of `secret_file`.
    """
    attributes, shape, kind = dict(group[name].attrs), group[name].shape, group[name].dtype
    del group[name]
    if way == "link":
        group[name] = h5py.ExternalLink(str(secret), "values")
        return
    if way == "raw":
        count = int(np.prod(shape)) * kind.itemsize
        data = group.create_dataset(name, shape, kind, external=[(str(secret), 0, count)])
    else:
        layout = h5py.VirtualLayout(shape, kind)
        layout[:] = h5py.VirtualSource(str(secret), "values", shape)
        data = group.create_virtual_dataset(name, layout)
    data.attrs.update(attributes)


def secret_file(folder: Path, like: Any) -> Path:
    """A file of the machine that no answer may show anything of."""
    path = folder / "secret.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.full(like.shape, 4321, dtype=like.dtype)
    return path


def abf_with_stimulus_file(folder: Path, stimulus: Path) -> bytes:
    """An ABF whose command is in a file that its header names."""
    path = write_abf2(folder / "made.abf")
    content = bytearray(path.read_bytes())
    path.unlink()
    old = b"made up"
    at = content.find(old)
    block, width, count = struct.unpack_from("<IIq", content, 76 + 16 * 9)
    assert 512 * block <= at
    name = str(stimulus).encode()
    # The last text of the header; the samples after it move by whole blocks.
    texts = content[512 * block : 512 * block + width * count].replace(old, name)
    room = -(-(width * count) // 512) * 512
    more = max(-(-(len(texts) - room) // 512), 0) * 512
    content[512 * block : 512 * block + room] = texts.ljust(room + more, b"\0")
    struct.pack_into("<IIq", content, 76 + 16 * 9, block, len(texts), 1)
    for section in (10, 15):
        start, *_ = struct.unpack_from("<IIq", content, 76 + 16 * section)
        struct.pack_into("<I", content, 76 + 16 * section, start + more // 512)
    (outputs,) = struct.unpack_from("<I", content, 76 + 16 * 2)
    struct.pack_into("<h", content, 512 * outputs + 42, 2)
    struct.pack_into("<i", content, 512 * outputs + 118, 7)
    return bytes(content)
