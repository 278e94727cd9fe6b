"""Compares what a load left in the lake with the source, by DuckDB, whoever made it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.ingest.ours import MASKING_KEY
from benchmarks.ingest.source import COLUMNS, HIDDEN, PLAIN, Source, fingerprint

SAMPLE = 20_000
"""Masked values that are compared one by one with Python's hmac."""

_GONE = "(id % 1000 = 7 AND id <= {rows})"


class Copy:
    """The rows that a Delta table holds."""

    def __init__(self, uri: str) -> None:
        import duckdb
        from deltalake import DeltaTable

        table = DeltaTable(uri)
        self.columns = [field.name for field in table.schema().fields]
        self._files = table.file_uris()
        self._connection = duckdb.connect(config={"memory_limit": "2GB"})
        self._connection.execute("SET TimeZone = 'UTC'")

    def ask(self, expressions: str, where: str = "true") -> tuple[Any, ...]:
        sql = f"SELECT {expressions} FROM read_parquet($files, union_by_name => true) WHERE {where}"
        (row,) = self._connection.execute(sql, {"files": self._files}).fetchall()
        return tuple(row)

    def rows(self, expressions: str, where: str) -> list[tuple[Any, ...]]:
        sql = f"SELECT {expressions} FROM read_parquet($files, union_by_name => true) WHERE {where}"
        found: list[tuple[Any, ...]] = self._connection.execute(sql, {"files": self._files}).fetchall()
        return found

    def figures(self, *, hidden: bool, where: str) -> dict[str, int]:
        """The figures of :attr:`Source.expected`."""
        sums = [f"count(*), count(DISTINCT id), {fingerprint(PLAIN, postgres=False)}"]
        sums += [fingerprint(HIDDEN, postgres=False)] if hidden else []
        count, distinct, plain, *rest = self.ask(", ".join(sums), where)
        figures = {"rows": int(count), "distinct": int(distinct), "plain": int(plain or 0)}
        return figures | ({"hidden": int(rest[0] or 0)} if hidden else {})

    def close(self) -> None:
        self._connection.close()


def _against(figures: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    faults = [] if figures["rows"] == figures["distinct"] else [f"{figures['rows'] - figures['distinct']} doubled rows"]
    if figures["rows"] != expected["rows"]:
        faults.append(f"{figures['rows']:,} rows, {expected['rows']:,} in the source")
    names = {"plain": "values differ", "hidden": "values of email or name differ"}
    return faults + [text for name, text in names.items() if name in figures and figures[name] != expected[name]]


def fault_of_peer(folder: Path, source: Source, *, work: str, day: str, flags: bool) -> str:
    """What is wrong with a peer's table; empty where nothing is."""
    copy = Copy(str(folder / "lake" / "bench" / "orders"))
    try:
        current = "_is_current" if flags else "true"
        faults = _against(copy.figures(hidden=True, where=current), source.expected[day])
        if not faults or work != "second":
            return "; ".join(faults) or (
                _fault_of_flags(copy, source, source.gone if work == "second" else 0) if flags else ""
            )
        known = f"NOT {_GONE.format(rows=source.rows)}"
        rest = _against(copy.figures(hidden=True, where=f"{current} AND {known}"), source.expected[day])
        return "; ".join(rest) or f"keeps the {source.gone:,} rows that are gone"
    finally:
        copy.close()


def _fault_of_flags(copy: Copy, source: Source, gone: int) -> str:
    marked, right, both = copy.ask(
        f"count(*) FILTER (_is_deleted), count(*) FILTER (_is_deleted AND {_GONE.format(rows=source.rows)}), "
        "count(*) FILTER (_is_deleted = _is_current)"
    )
    if (marked, right, both) != (gone, gone, 0):
        return f"{marked:,} rows flagged deleted, {right:,} of them rightly; {gone:,} are gone"
    return ""


def fault_of_ours(
    folder: Path,
    source: Source,
    *,
    work: str,
    day: str,
    gone: int,
    figures: Mapping[str, Any],
    originals: list[tuple[Any, ...]],
) -> str:
    """What is wrong with our table, its masks, its flags or our own count of what we did; empty where nothing is.

    Args:
        gone: rows that are to be flagged deleted.
        originals: id, e-mail and name of a sample, as the source has them.
    """
    copy = Copy(str(folder / "lake" / "bench" / "bronze" / "orders"))
    try:
        faults = _against(copy.figures(hidden=False, where="_is_current"), source.expected[day])
        faults += [fault] if (fault := _fault_of_flags(copy, source, gone)) else []
        faults += _faults_of_masks(copy, originals, rows=source.expected[day]["rows"])
        faults += _faults_of_counts(copy, source, work, gone, figures)
        lacking = {*COLUMNS, "_is_current", "_is_deleted", "_modified_at", "_batch_id", "_row_hash"} - {*copy.columns}
        return "; ".join([*faults, *(f"no column {name}" for name in sorted(lacking))])
    finally:
        copy.close()


def _faults_of_masks(copy: Copy, originals: list[tuple[Any, ...]], *, rows: int) -> list[str]:
    distinct, open_, shown = copy.ask(
        "count(DISTINCT email), count(*) FILTER (contains(email, '@')), count(*) FILTER (name <> 'C***')",
        "_is_current",
    )
    step = sample_step(rows)
    held = {row[0]: row[1:] for row in copy.rows("id, email, name", f"_is_current AND id % {step} = 0")}
    wrong = sum(
        held.get(number) != (token("email", email.lower()), None if name is None else "C***")
        for number, email, name in originals
    )
    faults = [f"{wrong:,} of {len(originals):,} masked values are not Python's"] if wrong else []
    if len(held) != len(originals) or not originals:
        faults.append(f"{len(held):,} rows in the sample, {len(originals):,} in the source's")
    if distinct != rows:
        faults.append(f"{rows - distinct:,} tokens are shared")
    if open_ or shown:
        faults.append(f"{open_ + shown:,} values are not masked")
    return faults


def _faults_of_counts(copy: Copy, source: Source, work: str, gone: int, figures: Mapping[str, Any]) -> list[str]:
    part = source.rows // 100
    inserted, updated, deleted = {
        "first": (source.rows, 0, 0),
        "second": (part, part, source.gone),
        "nothing": (0, 0, 0),
        "tenth": (part, 9 * part, 0),
    }[work]
    told = tuple(figures[name] for name in ("inserted", "updated", "deleted"))
    faults = []
    if told != (inserted, updated, deleted):
        faults.append(f"inserted, updated, deleted are told as {told}, not {(inserted, updated, deleted)}")
    (touched,) = copy.ask("count(*) FILTER (_batch_id > 1)")
    # Where nothing has changed since the second load, its rows are those of a later batch than the first.
    before = 2 * part + gone if work == "nothing" and gone else 0
    if touched != before + (0 if work == "first" else inserted + updated + deleted):
        faults.append(f"{touched:,} rows carry the new batch")
    return faults


def sample_step(rows: int) -> int:
    """One row in so many is in the sample of masked values."""
    return max(1, rows // SAMPLE)


def token(domain: str, form: str) -> str:
    """The documented token of a value's form, by Python's hmac alone."""
    key = MASKING_KEY.encode()

    def derived(*purpose: str) -> str:
        return hmac.new(key, "\x1f".join(("edp1", *purpose)).encode(), hashlib.sha256).hexdigest()

    domain_key = derived("token", domain, "1").encode()
    return f"{derived('key-id', '1')[:8]}.{hmac.new(domain_key, form.encode(), hashlib.sha256).hexdigest()}"
