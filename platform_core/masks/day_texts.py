"""Dates that stand in text columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_DAY = r"^\s*([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T\s].*)?$"


def days_in(text: pl.Expr) -> pl.Expr:
    """The date with which a text begins, written ``YYYY-MM-DD``; null where there is none."""
    return text.str.extract(_DAY, 1).str.to_date("%Y-%m-%d", strict=False)
