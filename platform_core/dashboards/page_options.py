"""What can be declared about a page: its headline figures, charts and tables."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from platform_core.dashboards.texts import check_format
from platform_core.specs.base import Model

MOST_POINTS = 5_000
"""Most points of one chart: more are slower to draw than to aggregate, and no eye tells them apart."""

MOST_ROWS = 500
"""Most rows of one table on a page."""


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


NumberFormat = Annotated[
    str,
    AfterValidator(check_format),
    Field(
        examples=[",.0f", ".1%", ".2f"], description="Like ',.0f' (thousands and decimals) or '.1%'; default: by type."
    ),
]

Columns = Annotated[
    tuple[str, ...], BeforeValidator(_as_list, json_schema_input_type=str | tuple[str, ...]), Field(min_length=1)
]
"""A column, or a list of columns."""

TableName = Annotated[str, Field(description="One of the tables in 'shows', written as there.")]


class ChartOptions(Model):
    """One chart of one table."""

    title: str
    description: str = Field(default="", description="A line below the title; also read out by screen readers.")
    table: TableName
    mark: Literal["line", "bar", "area", "point"] = "line"
    x: str = Field(description="Column along the horizontal axis.")
    y: Columns | None = Field(
        default=None,
        description="Number column, or several, each of which becomes a series; may be left out for aggregate: count.",
    )
    color: str | None = Field(
        default=None, description="Column whose values become series; not with several y columns."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="What a column is called on the page.")
    x_title: str | None = None
    y_title: str | None = None
    aggregate: Literal["sum", "mean", "median", "min", "max", "count"] | None = Field(
        default=None, description="How rows of the same x (and series) become one point; None: each row is a point."
    )
    sort: Literal["x", "-x", "y", "-y"] = Field(default="x", description="Order of the points; '-' is descending.")
    limit: int | None = Field(default=None, ge=1, le=MOST_POINTS, description="Only the first points in that order.")
    stack: bool | None = Field(
        default=None,
        description="Whether series of bars or areas add up; default: those of 'color' do, y columns do not.",
    )
    format: NumberFormat | None = None
    height: int = Field(default=260, ge=80, le=1_200, description="Height of the plot, pixels.")
    width: Literal["half", "full"] = Field(default="half", description="How much of a wide screen it takes.")

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read, each once."""
        return tuple(dict.fromkeys((self.x, *(self.y or ()), *((self.color,) if self.color else ()))))

    @property
    def stacked(self) -> bool:
        """Whether the series add up."""
        return self.mark in ("bar", "area") and (self.color is not None if self.stack is None else self.stack)

    @model_validator(mode="after")
    def _check_series(self) -> Self:
        if self.y is None and self.aggregate != "count":
            raise ValueError("a chart needs 'y' (a number column, or a list), unless aggregate is count")
        if self.color is not None and len(self.y or ()) > 1:
            raise ValueError("use either 'color' or several y columns: both make series")
        if self.stack and self.mark in ("line", "point"):
            raise ValueError(f"a {self.mark} cannot be stacked; use mark: area or bar")
        if self.sort.endswith("y") and (self.color is not None or len(self.y or ()) > 1):
            raise ValueError("sort by y needs a single series; remove 'color' or all y columns but one")
        return self


class FigureOptions(Model):
    """One headline number."""

    title: str
    table: TableName
    column: str | None = Field(default=None, description="Column it is made of; may be left out for count.")
    aggregate: Literal["sum", "max", "min", "mean", "last", "count"] = "sum"
    order_by: str | None = Field(
        default=None,
        description="For last: the column that tells the newest row; default: the only date or time column.",
    )
    format: NumberFormat | None = None
    unit: str = Field(default="", description="Stands small behind the number.")
    caption: str = Field(default="", description="A line below the number.")

    @model_validator(mode="after")
    def _check_column(self) -> Self:
        if self.column is None and self.aggregate != "count":
            raise ValueError(f"aggregate: {self.aggregate} needs 'column'")
        if self.order_by is not None and self.aggregate != "last":
            raise ValueError("'order_by' is for aggregate: last; remove it")
        return self


class TableOptions(Model):
    """Rows of one table."""

    title: str
    description: str = ""
    table: TableName
    columns: Columns | None = Field(default=None, description="Columns to show, in order; None: all.")
    labels: dict[str, str] = Field(default_factory=dict, description="What a column is called on the page.")
    formats: dict[str, NumberFormat] = Field(default_factory=dict, description="Number format by column.")
    limit: int = Field(default=20, ge=1, le=MOST_ROWS)
    order_by: Columns | None = Field(
        default=None, description="Columns, each with '-' before it for descending; None: by the first column."
    )


class PageOptions(Model):
    """A page: a row of figures, then charts, then tables."""

    intro: str = Field(default="", description="Plain text above the figures; an empty line starts a paragraph.")
    figures: tuple[FigureOptions, ...] = ()
    charts: tuple[ChartOptions, ...] = ()
    tables: tuple[TableOptions, ...] = ()

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if not (self.figures or self.charts or self.tables):
            raise ValueError("a page needs at least one of 'figures', 'charts' or 'tables'")
        return self
