"""Workbooks in three formats, written by hand: xlsx, ods, and xls."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from html import escape

#: The rows of a sheet; an empty field is None.
Rows = Sequence[Sequence[str | float | None]]


def xlsx(sheets: Mapping[str, Rows], merged: Sequence[str] = ()) -> bytes:
    """A workbook of Excel; `merged` are ranges of the first sheet."""
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    for each in merged:
        book.worksheets[0].merge_cells(each)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


_NAMES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for name in ("office", "table", "text", "manifest")
)
_OF_ODS = "application/vnd.oasis.opendocument.spreadsheet"


def ods(sheets: Mapping[str, Rows]) -> bytes:
    """A workbook of LibreOffice, with the empty rest of its sheets, as it writes them."""
    tables = "".join(
        f'<table:table table:name="{escape(name)}">'
        f"{''.join(map(_ods_row, rows))}"
        '<table:table-row table:number-rows-repeated="1048500"><table:table-cell '
        'table:number-columns-repeated="16384"/></table:table-row></table:table>'
        for name, rows in sheets.items()
    )
    return ods_of(tables)


def ods_of(tables: str) -> bytes:
    """A workbook of LibreOffice of some elements."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", _OF_ODS)
        archive.writestr(
            "META-INF/manifest.xml",
            f'<manifest:manifest {_NAMES}><manifest:file-entry manifest:full-path="/" '
            f'manifest:media-type="{_OF_ODS}"/></manifest:manifest>',
        )
        archive.writestr(
            "content.xml",
            f"<office:document-content {_NAMES}><office:body><office:spreadsheet>{tables}"
            "</office:spreadsheet></office:body></office:document-content>",
        )
    return out.getvalue()


def _ods_row(row: Sequence[str | float | None]) -> str:
    cells = "".join(map(_ods_cell, row))
    rest = f'<table:table-cell table:number-columns-repeated="{16384 - len(row)}"/>'
    return f"<table:table-row>{cells}{rest}</table:table-row>"


def _ods_cell(value: str | float | None) -> str:
    if value is None:
        return "<table:table-cell/>"
    kind = 'string"' if isinstance(value, str) else f'float" office:value="{value!r}"'
    return (
        f'<table:table-cell office:value-type="{kind}><text:p>{escape(str(value))}</text:p>'
        "</table:table-cell>"
    )


def xls(sheets: Mapping[str, Rows]) -> bytes:
    """A workbook of Excel before 2007: records of BIFF8 in a compound file."""
    globals_ = _record(0x0809, struct.pack("<HHHHII", 0x0600, 0x0005, 0, 0, 0, 0))
    bodies = [_xls_sheet(rows) for rows in sheets.values()]
    size = sum(4 + 8 + len(name.encode("utf-16-le")) for name in sheets)
    place = len(globals_) + size + 4
    for name, body in zip(sheets, bodies, strict=True):
        head = struct.pack("<IHBB", place, 0, len(name), 1)
        globals_ += _record(0x0085, head + name.encode("utf-16-le"))
        place += len(body)
    return _compound(globals_ + _record(0x000A) + b"".join(bodies))


def _record(kind: int, content: bytes = b"") -> bytes:
    return struct.pack("<HH", kind, len(content)) + content


def _xls_sheet(rows: Rows) -> bytes:
    body = _record(0x0809, struct.pack("<HHHHII", 0x0600, 0x0010, 0, 0, 0, 0))
    for number, row in enumerate(rows):
        for column, value in enumerate(row):
            place = struct.pack("<HHH", number, column, 0)
            if isinstance(value, str):
                text = struct.pack("<HB", len(value), 1) + value.encode("utf-16-le")
                body += _record(0x0204, place + text)
            elif value is not None:
                body += _record(0x0203, place + struct.pack("<d", value))
    return body + _record(0x000A)


def _compound(stream: bytes) -> bytes:
    """A compound file of one stream, which is called Workbook."""
    stream = stream.ljust(4096, b"\0")
    sectors = -(-len(stream) // 512)
    chain = [0xFFFFFFFD, 0xFFFFFFFE, *range(3, sectors + 2), 0xFFFFFFFE]
    assert len(chain) <= 128
    table = struct.pack("<128I", *chain, *[0xFFFFFFFF] * (128 - len(chain)))
    head = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16)
    head += struct.pack(
        "<HHHHH6xIII4xIIIII", 62, 3, 0xFFFE, 9, 6, 0, 1, 1, 4096, *[0xFFFFFFFE, 0], *[0xFFFFFFFE, 0]
    )
    head += struct.pack("<109I", 0, *[0xFFFFFFFF] * 108)
    entries = _entry("Root Entry", 5, 1, 0xFFFFFFFE, 0) + _entry(
        "Workbook", 2, 0xFFFFFFFF, 2, len(stream)
    )
    return head + table + entries.ljust(512, b"\0") + stream.ljust(512 * sectors, b"\0")


def _entry(name: str, kind: int, child: int, start: int, size: int) -> bytes:
    text = name.encode("utf-16-le")
    free = 0xFFFFFFFF
    return (
        text.ljust(64, b"\0")
        + struct.pack("<HBBIII", len(text) + 2, kind, 1, free, free, child)
        + bytes(36)
        + struct.pack("<IQ", start, size)
    )
