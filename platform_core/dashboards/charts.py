"""Draws one chart as an SVG: a Vega-Lite spec built from points, rendered without a browser or outside request."""

from __future__ import annotations

import datetime as dt
import html
import re
from typing import Any

import pyarrow as pa

from platform_core.dashboards.page_options import ChartOptions
from platform_core.dashboards.page_query import SERIES, Points, X, Y
from platform_core.dashboards.texts import NOTHING, label, value_text
from platform_core.errors import RefreshError, redacted

PALETTE = {
    # After Okabe and Ito, told apart with every common colour blindness; the yellow, too faint on white, is left out.
    "#0072b2": "#5ab0e8",
    "#d55e00": "#ff8f4a",
    "#009e73": "#3fcfa2",
    "#cc79a7": "#e8a6ca",
    "#e69f00": "#f5bd55",
    "#56b4e9": "#a3d8ff",
    "#785ef0": "#b3a4ff",
    "#6b7280": "#aab3c0",
}
"""Colours of series on a light page, each with its counterpart on a dark one."""

INK = {"#5b6675": "#9aa7b8", "#e4e8ed": "#2c3542", "#b4bdc9": "#566273"}
"""Colours of labels, grid and axis on a light page, each with its counterpart on a dark one."""

FULL, HALF, NARROW = 1_072, 524, 340
"""Widths in pixels that charts are drawn for: a wide screen, half of it, a telephone."""

_LABELS, _GRID, _AXIS = INK
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_VEGA_LITE = "5.21"
_BARS_WITH_LABELS = 40
_LETTER = 6.5
_ROW = 28
_AXIS_ROOM = 70
_SYMBOL_ROOM = 32
_DENSE = 300
_SPARSE = 16

_TIME_LABEL = (
    "utchours(datum.value) || utcminutes(datum.value) ? utcFormat(datum.value, '%H:%M') : "
    "utcdate(datum.value) != 1 ? utcFormat(datum.value, '%-d %b') : "
    "utcmonth(datum.value) ? utcFormat(datum.value, '%b') : utcFormat(datum.value, '%Y')"
)
_LARGE_LABEL = "datum.value ? format(datum.value, '~s') : '0'"
_LARGE = 10_000
_TIME_ROOM = 80

_OPENING = re.compile(r"<svg[^>]*viewBox=\"([\d. -]+)\"[^>]*>")
_INVISIBLE = re.compile(
    r"<path class=\"(?:background|foreground)\"[^>]*/>|<text [^>]*opacity=\"0\">[^<]*</text>|"
    r" (?:role|aria-roledescription|aria-hidden|pointer-events)=\"[^\"]*\"| opacity=\"1\""
)


def draw(options: ChartOptions, points: Points, *, width: int, name: str) -> str:
    """Draw one chart.

    Args:
        options: what was declared.
        points: what is drawn.
        width: pixels.
        name: unique on the page; ties title and description to the drawing.

    Returns:
        An ``<svg>`` element that scales with its parent.

    Raises:
        RefreshError: more series than colours, or the renderer refused.
    """
    import vl_convert

    spec = build_spec(options, points, width=width)
    failure = ""
    try:
        # No address is allowed, so that not even a wrong spec could fetch anything.
        svg = vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE, allowed_base_urls=[])
    except ValueError as error:
        failure = redacted(error)
    if failure:
        raise RefreshError(f"chart '{options.title}': vl-convert could not draw it: {failure}")
    return _accessible(svg, options, points, name=name)


def build_spec(options: ChartOptions, points: Points, *, width: int) -> dict[str, Any]:
    """The Vega-Lite spec of one chart; data inline, no address in it."""
    series = series_names(options, points)
    x_values, x_type = _x_values(options, points.rows.column(X))
    values = [
        {X: x, Y: y, SERIES: name}
        for x, y, name in zip(x_values, points.rows.column(Y).to_pylist(), _series(options, points), strict=True)
    ]
    distinct = len(set(x_values))
    sideways = options.mark == "bar" and x_type == "nominal" and _letters(x_values) * _LETTER > width - _AXIS_ROOM
    along = _along(options, x_type, width=width, sideways=sideways)
    across = _across(options, points, series)
    encoding: dict[str, Any] = {"y": along, "x": across} if sideways else {"x": along, "y": across}
    encoding["color"] = {
        "field": SERIES,
        "type": "nominal",
        "scale": {"domain": series, "range": list(PALETTE)[: len(series)]},
        "legend": _legend(options, series, width) if len(series) > 1 else None,
    }
    if len(series) > 1 and options.mark == "bar" and not options.stacked:
        encoding["yOffset" if sideways else "xOffset"] = {"field": SERIES, "type": "nominal", "sort": series}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": width,
        "height": max(80, _ROW * distinct) if sideways else options.height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 6, "top": 4, "right": 8, "bottom": 2},
        "data": {"values": values},
        "mark": _mark(options, series, distinct, width),
        "encoding": encoding,
        "config": _CONFIG,
    }


def series_names(options: ChartOptions, points: Points) -> list[str]:
    """Names of the series as the legend shows them, in order of appearance."""
    if len(options.y or ()) > 1:
        return list(dict.fromkeys(label(column, options.labels) for column in options.y or ()))
    names = list(dict.fromkeys(_series(options, points)))
    if options.color is not None:
        names.sort(key=lambda name: (name == NOTHING, _natural(name)))
    if len(names) > len(PALETTE):
        raise RefreshError(
            f"chart '{options.title}': column '{options.color}' makes {len(names)} series, but only {len(PALETTE)} "
            "can be told apart\n  group the small ones in gold, or show fewer"
        )
    return names


def describe(options: ChartOptions, points: Points) -> str:
    """One sentence for those who do not see the chart."""
    x, y = (
        points.rows.column(X).to_pylist(),
        [value for value in points.rows.column(Y).to_pylist() if value is not None],
    )
    if not y:
        return f"{options.mark.capitalize()} chart without points."
    ends = f"from {value_text(x[0])} to {value_text(x[-1])}"
    extent = f"values from {value_text(min(y), format=options.format)} to {value_text(max(y), format=options.format)}"
    return (
        f"{options.mark.capitalize()} chart of {_y_title(options)} by {_x_title(options)}, "
        f"{points.rows.num_rows} points {ends}, {extent}."
    )


def _x_title(options: ChartOptions) -> str:
    return label(options.x, options.labels) if options.x_title is None else options.x_title


def _y_title(options: ChartOptions) -> str:
    if options.y_title is not None:
        return options.y_title
    return ", ".join(label(column, options.labels) for column in options.y or ("rows",))


def _series(options: ChartOptions, points: Points) -> list[str]:
    names = points.rows.column(SERIES).to_pylist()
    if options.color is not None:
        return [NOTHING if name is None else name for name in names]
    return [label(name, options.labels) if name else "" for name in names]


def _x_values(options: ChartOptions, column: pa.ChunkedArray) -> tuple[list[Any], str]:
    """The x of each point as Vega-Lite takes it, and its type there."""
    types, type_ = pa.types, column.type
    discrete = options.mark == "bar"
    if types.is_date(type_) or types.is_timestamp(type_):
        if discrete and len(column.unique()) <= _BARS_WITH_LABELS:
            return _dates(column.to_pylist()), "ordinal"
        return [_milliseconds(value) for value in column.to_pylist()], "temporal"
    if types.is_integer(type_):
        return column.to_pylist(), "ordinal" if discrete else "quantitative"
    if types.is_floating(type_) or types.is_decimal(type_):
        return column.cast(pa.float64()).to_pylist(), "ordinal" if discrete else "quantitative"
    return [value_text(value) for value in column.to_pylist()], "nominal"


def _milliseconds(value: dt.date) -> int:
    """Since 1970 in UTC; a time without zone counts as UTC, so that every machine draws it alike."""
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    value = value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value
    return round(value.timestamp() * 1_000)


def _dates(values: list[dt.date]) -> list[str]:
    """Labels of dates side by side; firsts of months are months."""
    if len(set(values)) > 1 and all(value_text(value).endswith("-01") for value in values):
        return [f"{value:%b %Y}" for value in values]
    return [value_text(value) for value in values]


def _letters(values: list[Any]) -> int:
    """Room in letters that the labels of an axis take side by side."""
    names = set(values)
    return len(names) * (max((len(str(name)) for name in names), default=0) + 1)


def _along(options: ChartOptions, type_: str, *, width: int, sideways: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "title": _x_title(options) or None,
        "grid": False,
        "labelOverlap": "parity",
        "labelSeparation": 8,
    }
    along: dict[str, Any] = {"field": X, "type": type_, "axis": axis}
    if sideways:
        return along | {"sort": None, "axis": axis | {"title": None, "labelLimit": 180, "labelOverlap": False}}
    match type_:
        case "temporal":
            along["scale"] = {"type": "utc"}
            axis |= {"labelExpr": _TIME_LABEL, "tickCount": max(3, round((width - _AXIS_ROOM) / _TIME_ROOM))}
        case "quantitative":
            along["scale"] = {"zero": False, "nice": options.mark == "point"}
            axis["format"] = "~r"
        case _:
            along["sort"] = None
            axis["labelAngle"] = 0
    return along


def _across(options: ChartOptions, points: Points, series: list[str]) -> dict[str, Any]:
    largest = max((abs(value) for value in points.rows.column(Y).to_pylist() if value is not None), default=0)
    axis: dict[str, Any] = {"title": _y_title(options) or None, "tickCount": 5, "domain": False, "ticks": False}
    if options.format is not None:
        axis["format"] = options.format
    elif largest >= _LARGE:
        axis["labelExpr"] = _LARGE_LABEL
    across: dict[str, Any] = {"field": Y, "type": "quantitative", "axis": axis}
    if options.mark in ("bar", "area"):
        across["stack"] = "zero" if options.stacked and len(series) > 1 else None
    return across


def _mark(options: ChartOptions, series: list[str], distinct: int, width: int) -> dict[str, Any]:
    stroke = 1.3 if distinct > _DENSE else 2.2
    match options.mark:
        case "line":
            dots = {"size": 26, "filled": True} if distinct <= _SPARSE else False
            return {"type": "line", "strokeWidth": stroke, "point": dots}
        case "area":
            stacked = options.stacked and len(series) > 1
            return {
                "type": "area",
                "opacity": 0.85 if stacked else 0.18,
                "line": False if stacked else {"strokeWidth": stroke},
            }
        case "bar":
            thin = (
                {}
                if distinct <= _BARS_WITH_LABELS
                else {"size": max(1, round(0.7 * (width - _AXIS_ROOM) / distinct, 1))}
            )
            return {"type": "bar", "cornerRadiusEnd": 2 if distinct <= _BARS_WITH_LABELS else 0} | thin
        case _:
            return {"type": "point", "filled": True, "opacity": 0.5 if distinct > _DENSE else 0.75, "size": 30}


def _legend(options: ChartOptions, series: list[str], width: int) -> dict[str, Any]:
    entry = max(len(name) for name in series) * _LETTER + _SYMBOL_ROOM
    shown: dict[str, Any] = {"title": None, "columns": max(1, int((width - _AXIS_ROOM) / entry))}
    if options.mark == "line":
        return shown | {"symbolType": "stroke", "symbolStrokeWidth": 3, "symbolSize": 160}
    return shown | {"symbolType": "circle", "symbolStrokeWidth": 0, "symbolSize": 70, "symbolOpacity": 1}


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sorts 2 before 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"[0-9]+|[^0-9]+", text)]


def _accessible(svg: str, options: ChartOptions, points: Points, *, name: str) -> str:
    opening = _OPENING.match(svg)
    if opening is None:
        raise RefreshError(f"chart '{options.title}': vl-convert answered with something other than an SVG")
    body = _INVISIBLE.sub("", svg[opening.end() :])
    description = " ".join(filter(None, (options.description, describe(options, points))))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{opening[1]}" role="img" '
        f'aria-labelledby="{name}-title {name}-text"><title id="{name}-title">{html.escape(options.title)}</title>'
        f'<desc id="{name}-text">{html.escape(description)}</desc>{body}'
    )


_CONFIG: dict[str, Any] = {
    "aria": False,
    "background": None,
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": _LABELS,
        "labelFontSize": 11.5,
        "labelPadding": 6,
        "titleColor": _LABELS,
        "titleFontSize": 11.5,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "gridColor": _GRID,
        "domainColor": _AXIS,
        "tickColor": _AXIS,
        "tickSize": 4,
    },
    "legend": {
        "orient": "top",
        "labelColor": _LABELS,
        "labelFontSize": 11.5,
        "offset": 8,
        "columnPadding": 16,
    },
    "line": {"strokeCap": "round", "strokeJoin": "round"},
    "scale": {"bandPaddingInner": 0.22, "bandPaddingOuter": 0.12},
}
