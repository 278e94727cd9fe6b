"""Writes Excel workbooks cell by cell, so that a test says exactly what lies in one."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from collections.abc import Mapping, Sequence
from decimal import Decimal
from xml.sax.saxutils import escape

_EPOCH = dt.datetime(1899, 12, 30)
_NS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_STYLES = (
    f'<styleSheet xmlns="{_NS}"><fonts count="1"><font/></fonts><fills count="1"><fill/></fills>'
    '<borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="4">'
    '<xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/><xf numFmtId="46"/></cellXfs></styleSheet>'
)


class Raw(str):
    """A number as it stands in the file."""

    __slots__ = ()


class Cell(str):
    """A cell in the file's own XML, its place included."""

    __slots__ = ()


class Fault(str):
    """An error that a formula came to, such as #N/A."""

    __slots__ = ()


def reference(row: int, column: int) -> str:
    """A cell's name: A1 for 0, 0."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return f"{letters}{row + 1}"


def cell(row: int, column: int, value: object) -> str:
    """One cell in the file's own XML."""
    at = reference(row, column)
    if value is None:
        return ""
    if isinstance(value, Cell):
        return value
    if isinstance(value, bool):
        return f'<c r="{at}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, Fault):
        return f'<c r="{at}" t="e"><v>{value}</v></c>'
    if isinstance(value, (int, float, Decimal, Raw)):
        return f'<c r="{at}"><v>{value!r}</v></c>' if isinstance(value, float) else f'<c r="{at}"><v>{value}</v></c>'
    if isinstance(value, dt.datetime):
        days = (value - _EPOCH) / dt.timedelta(days=1)
        return f'<c r="{at}" s="2"><v>{days!r}</v></c>'
    if isinstance(value, dt.date):
        return f'<c r="{at}" s="1"><v>{(dt.datetime.combine(value, dt.time()) - _EPOCH).days}</v></c>'
    return f'<c r="{at}" t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'


def workbook(sheets: Mapping[str, Sequence[Sequence[object]]]) -> bytes:
    """A workbook with a sheet by name, each a list of rows."""
    parts: dict[str, str] = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="xml" ContentType="application/xml"/>'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml" ContentType='
        '"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="rId1" Type="{_RELATIONS}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/styles.xml": _STYLES,
    }
    entries, links = [], []
    for number, (name, rows) in enumerate(sheets.items(), 1):
        entries.append(f'<sheet name="{escape(name)}" sheetId="{number}" r:id="rId{number}"/>')
        links.append(
            f'<Relationship Id="rId{number}" Type="{_RELATIONS}/worksheet" Target="worksheets/sheet{number}.xml"/>'
        )
        body = "".join(
            f'<row r="{row + 1}">' + "".join(cell(row, column, value) for column, value in enumerate(values)) + "</row>"
            for row, values in enumerate(rows)
        )
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{_NS}"><sheetData>{body}</sheetData></worksheet>'
        )
    links.append(f'<Relationship Id="rId0" Type="{_RELATIONS}/styles" Target="styles.xml"/>')
    parts["xl/workbook.xml"] = (
        f'<workbook xmlns="{_NS}" xmlns:r="{_RELATIONS}"><sheets>{"".join(entries)}</sheets></workbook>'
    )
    parts["xl/_rels/workbook.xml.rels"] = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f"{''.join(links)}</Relationships>"
    )
    return packed({name: content.encode() for name, content in parts.items()})


def packed(parts: Mapping[str, bytes]) -> bytes:
    """A zip archive of the parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()
