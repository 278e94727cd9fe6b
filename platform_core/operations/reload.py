"""What is read again on a person's demand: everything, or a span of cursor values."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import pyarrow as pa

from platform_core.errors import LoadError
from platform_core.plugins.interfaces import Cursor
from platform_core.specs.ingestion import IngestionSpec, LoadMode
from platform_core.specs.table import TableRef


@dataclass(frozen=True, kw_only=True)
class Reload:
    """What is read, in place of what is new.

    Args:
        since: lowest cursor value, as text; None: from the beginning.
        until: highest cursor value, as text; None: to the end.
        detect_deletes: compare the keys afterwards, and flag rows deleted that the source does not have.
    """

    since: str | None = None
    until: str | None = None
    detect_deletes: bool = False


def check_reload(spec: IngestionSpec, reload: Reload | None) -> None:
    """Refuse a reload that would do harm or means nothing.

    Raises:
        LoadError: it says why.
    """
    if reload is None:
        return
    if spec.mode is LoadMode.APPEND:
        raise LoadError(
            f"{spec.ref}: mode append cannot be reloaded: every row would be there twice\n"
            "  to begin anew, remove the bronze table, its landing and its source state, and load it"
        )
    if (reload.since or reload.until) and spec.cursor is None:
        raise LoadError(f"{spec.ref}: a span of cursor values needs 'cursor'; without one the table is reloaded whole")
    if reload.detect_deletes and spec.mode is not LoadMode.INCREMENTAL:
        raise LoadError(f"{spec.ref}: mode {spec.mode} finds deletes with every load")


def cursor_value(text: str, type_: pa.DataType, *, of: TableRef) -> Cursor:
    """A cursor value that a person wrote.

    Times without a zone are UTC where the column has one.

    Raises:
        LoadError: it is no value of the cursor column's type.
    """
    try:
        if pa.types.is_string(type_):
            return text
        if pa.types.is_floating(type_):
            return float(text)
        if pa.types.is_date(type_):
            return dt.date.fromisoformat(text)
        if pa.types.is_timestamp(type_):
            moment = dt.datetime.fromisoformat(text)
            if type_.tz is None:
                return moment if moment.tzinfo is None else moment.astimezone(dt.UTC).replace(tzinfo=None)
            return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
        return int(Decimal(text))
    except (ValueError, InvalidOperation, OverflowError):
        examples = "42, 2026-03-01 or 2026-03-01T06:00:00+00:00"
        raise LoadError(f"{of}: not a value of the cursor, which is a {type_}\n  values read like {examples}") from None
