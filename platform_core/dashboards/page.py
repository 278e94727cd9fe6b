"""The dashboard `page`: one self-contained HTML page, made from the tables it shows."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from platform_core.dashboards.charts import FULL, HALF, INK, NARROW, PALETTE, draw
from platform_core.dashboards.page_options import ChartOptions, FigureOptions, PageOptions, TableOptions
from platform_core.dashboards.page_query import SERIES, PageQuery, Points, X, Y
from platform_core.dashboards.publishing import publish
from platform_core.dashboards.texts import format_of, label, value_text
from platform_core.errors import RefreshError
from platform_core.plugins.interfaces import Dashboard, RefreshRequest, RefreshResult
from platform_core.specs.base import Model

if TYPE_CHECKING:
    import jinja2
    import markupsafe

FILE = "index.html"
"""Name of the page in the dashboard's folder."""

_MOST_NUMBERS = 200
"""Charts of up to this many points have their numbers below them."""


_LONGEST_AMOUNT = 14


@dataclass(frozen=True)
class _Column:
    """Head of a column on the page."""

    name: str
    kind: str


class PageDashboard(Dashboard):
    """Renders figures, charts and tables into one file that needs no script and makes no request."""

    Options: ClassVar[type[Model]] = PageOptions
    in_lake: ClassVar[bool] = True
    options: PageOptions

    def refresh(self, request: RefreshRequest) -> RefreshResult:
        """Render the page and put it in place of the old one, which stays if anything fails."""
        page = self.render(request)
        content = page.encode()
        url = publish(content, folder=request.folder, name=FILE, storage_options=request.storage_options)
        request.log(f"wrote {url} ({len(content):,} bytes)")
        return RefreshResult(
            url=url,
            figures={
                "bytes": len(content),
                "charts": len(self.options.charts),
                "headline_figures": len(self.options.figures),
                "tables": len(self.options.tables),
            },
        )

    def render(self, request: RefreshRequest) -> str:
        """The page as HTML; the same tables and options give the same text.

        Raises:
            RefreshError: a table or column is not there or does not fit, or the run is being cancelled.
        """
        query = PageQuery(request.tables)
        return _template().render(
            title=request.title or request.name,
            name=request.name,
            as_of=request.as_of,
            intro=[part.strip() for part in re.split(r"\n\s*\n", self.options.intro) if part.strip()],
            figures=[_figure(figure, query) for figure in self.options.figures],
            charts=[
                self._chart(chart, query, request, number) for number, chart in enumerate(self.options.charts, start=1)
            ],
            tables=[_table(table, query.rows(table)) for table in self.options.tables],
            versions={name: reader.version for name, reader in request.tables.items()},
            colours=INK | PALETTE,
        )

    def _chart(self, options: ChartOptions, query: PageQuery, request: RefreshRequest, number: int) -> dict[str, Any]:
        if request.cancelled():
            raise RefreshError(f"{request.name}: cancelled before its page was written; the old page stays")
        points = query.points(options)
        request.log(f"chart '{options.title}': {points.rows.num_rows:,} points")
        shown: dict[str, Any] = {
            "title": options.title,
            "description": options.description,
            "full": options.width == "full",
            "x": label(options.x, options.labels),
            "without_x": points.without_x,
            "wide": "",
            "narrow": "",
            "columns": [],
            "rows": [],
        }
        if points.rows.num_rows:
            # The template leaves SVG as it is: its texts were escaped by the renderer that wrote it.
            wide = FULL if options.width == "full" else HALF
            shown["wide"] = _markup(draw(options, points, width=wide, name=f"chart-{number}-wide"))
            shown["narrow"] = _markup(draw(options, points, width=NARROW, name=f"chart-{number}-narrow"))
        if 0 < points.rows.num_rows <= _MOST_NUMBERS:
            shown["columns"], shown["rows"] = _numbers(options, points)
        return shown


def _figure(options: FigureOptions, query: PageQuery) -> dict[str, Any]:
    value = value_text(query.figure(options), format=options.format)
    # A number stays on one line; a text of any length must be able to wrap.
    long = len(value) > _LONGEST_AMOUNT
    return {"title": options.title, "value": value, "long": long, "unit": options.unit, "caption": options.caption}


def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["day"] = _day
    return environment.get_template("page.html.j2")


def _markup(svg: str) -> markupsafe.Markup:
    import markupsafe

    return markupsafe.Markup(svg)  # noqa: S704 - written by draw(), which escapes


def _day(time: dt.datetime) -> str:
    return f"{time.astimezone(dt.UTC):%-d %B %Y, %H:%M} UTC"


def _numbers(options: ChartOptions, points: Points) -> tuple[list[_Column], list[list[str]]]:
    """The points of a chart, as a table below it."""
    several = options.color is not None or len(options.y or ()) > 1
    columns = [_Column(label(options.x, options.labels), _kind(points.rows.schema.field(X).type))]
    if several:
        columns.append(_Column(label(options.color, options.labels) if options.color else "Series", ""))
    values = options.y_title or ("Value" if several else label((options.y or ("rows",))[0], options.labels))
    columns.append(_Column(values, "number"))
    format_ = options.format or format_of(points.rows.column(Y).to_pylist())
    rows = []
    for row in points.rows.to_pylist():
        series = row[SERIES] if options.color or not row[SERIES] else label(row[SERIES], options.labels)
        middle = [value_text(series)] if several else []
        rows.append([value_text(row[X]), *middle, value_text(row[Y], format=format_)])
    return columns, rows


def _table(options: TableOptions, rows: pa.Table) -> dict[str, Any]:
    columns = [_Column(label(field.name, options.labels), _kind(field.type)) for field in rows.schema]
    formats = [options.formats.get(name) or format_of(rows.column(name).to_pylist()) for name in rows.column_names]
    return {
        "title": options.title,
        "description": options.description,
        "columns": columns,
        "rows": [
            [value_text(value, format=format_) for value, format_ in zip(row.values(), formats, strict=True)]
            for row in rows.to_pylist()
        ],
    }


def _kind(type_: pa.DataType) -> str:
    """How a column is set: numbers to the right, times on one line; empty for the rest."""
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "number"
    return "time" if pa.types.is_temporal(type_) else ""
