"""What section 4 of the design promises of a load, said again in plain dictionaries and nothing of the platform."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

from tests.masks.oracle import token

Row = dict[str, Any]
Key = tuple[Any, ...]
Columns = dict[str, str]
"""Type by name."""

FIGURES = ("rows_read", "inserted", "updated", "deleted", "unchanged", "late", "quarantined")
BASE: Columns = {
    "id": "int64",
    "part": "string",
    "name": "string",
    "amount": "int32",
    "value": "string",
    "seq": "int64",
    "rank": "int64",
    "gone": "bool",
}
EXTRA = "extra"
WIDER = {("int32", "int64")}


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What the table's declaration says."""

    mode: str
    key: tuple[str, ...]
    masked_key: bool = False
    masked: bool = False
    lookback: int = 0
    flag: bool = False
    rank: bool = False
    quarantine: bool = False
    ratio: float = 0.5
    floor: int = 3
    new_columns: str = "evolve"
    missing: str = "refuse"
    type_change: str = "widen"
    history: bool = False
    every: dt.timedelta | None = None
    stateful: bool = False
    told: bool = False
    classified: bool = False

    @property
    def cursor(self) -> bool:
        return self.mode != "full" and not self.stateful

    @property
    def sequence(self) -> str | None:
        if self.rank:
            return "rank"
        return "seq" if self.mode == "incremental" else None

    @property
    def personal(self) -> bool:
        return self.masked or self.masked_key


@dataclass(frozen=True, kw_only=True)
class Landed:
    """Rows of one batch, masked, in the columns of bronze."""

    mode: str
    columns: Columns
    rows: tuple[Row, ...]
    read: int
    held: int
    state: int | frozenset[str] | None = None
    largest: int | None = None


@dataclass(frozen=True, kw_only=True)
class State:
    """Bronze and its history after a batch.

    Args:
        columns: None: there is no table yet.
        rows: by key; of an append by number.
        batch: the newest one.
        content: the id under which the rows of that batch were landed.
        versions: by key, oldest first.
        source: what a source that keeps state, or tells changes, knew after that batch.
    """

    columns: Columns | None = None
    rows: dict[Key, Row] = field(default_factory=dict)
    batch: int = 0
    content: int = 0
    versions: dict[Key, tuple[Row, ...]] = field(default_factory=dict)
    source: int | frozenset[str] | None = None

    @property
    def mark(self) -> int | None:
        """The watermark: the highest cursor value of all rows."""
        return max((row["seq"] for row in self.rows.values() if row["seq"] is not None), default=None)

    @property
    def current(self) -> int:
        return sum(row["_is_current"] for row in self.rows.values())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one load came to.

    Args:
        end: succeeded, stopped (for its deletes), schema, keys (both refused).
        after: what bronze is then.
        quarantine: rows set aside, each with its reason.
        deletes: rows that a stopped load would have flagged.
        left_alone: keys of this load that are late, or bad.
    """

    end: str
    after: State
    figures: dict[str, int] = field(default_factory=dict)
    committed: bool = False
    quarantine: tuple[Row, ...] = ()
    landed: Landed | None = None
    deletes: int = 0
    left_alone: frozenset[Key] = frozenset()


class RefusedColumns(Exception):  # noqa: N818 - what the load said, not an error of the model
    """The contract does not allow the source's columns."""


@lru_cache(maxsize=65_536)
def hashed(domain: str, text: str, key: bytes) -> str:
    return token(domain, text, key=key)


def masked(row: Row, declared: Declared, key: bytes) -> Row:
    """The row as it may reach a disk."""
    shown = dict(row)
    if declared.masked:
        shown["name"] = None if row["name"] is None else hashed("text", row["name"], key)
        if row.get("value") is not None:
            shown["value"] = f"{row['value'][:1]}***" if len(row["value"]) > 1 else "***"
    if declared.masked_key:
        shown["id"] = None if row["id"] is None else hashed("identifier", str(row["id"]), key)
    return shown


def shown_columns(columns: Columns, declared: Declared) -> Columns:
    """The types that masks leave."""
    return columns | ({"id": "string"} if declared.masked_key else {})


def agreed(declared: Declared, given: Columns, held: Columns | None) -> Columns:
    """Columns of bronze after the load."""
    given = shown_columns(given, declared)
    excused = held if held is not None and declared.missing == "null" else {}
    named = [name for name, said in (("name", declared.masked), ("value", declared.masked)) if said]
    named += [EXTRA] if declared.classified else []
    if any(name not in given and name not in excused for name in named):
        raise RefusedColumns
    if held is None:
        return given
    new = [name for name in given if name not in held]
    if declared.personal and any(name not in named for name in new):
        raise RefusedColumns
    if new and declared.new_columns == "refuse":
        raise RefusedColumns
    missing = [name for name in held if name not in given]
    if missing and declared.missing == "refuse":
        raise RefusedColumns
    result = {}
    for name, type_ in held.items():
        now = given.get(name, type_)
        if now != type_ and declared.type_change == "refuse":
            raise RefusedColumns
        if now == type_ or (now, type_) in WIDER:
            result[name] = type_
        elif (type_, now) in WIDER:
            result[name] = now
        else:
            raise RefusedColumns
    return result if declared.new_columns == "ignore" else result | {name: given[name] for name in new}


def extracted(
    declared: Declared,
    state: State,
    rows: list[Row],
    given: Columns,
    *,
    key: bytes,
    span: tuple[int | None, int | None] | None = None,
    told: frozenset[str] | None = None,
) -> Landed:
    """The rows that a load reads.

    Args:
        span: a reload of these cursor values.
        told: what a source that tells changes knows afterwards.

    Raises:
        RefusedColumns: before any row is read.
    """
    columns = agreed(declared, given, state.columns)
    mark = state.mark
    low = high = None
    known: int | frozenset[str] | None = told
    if declared.stateful:
        assert not isinstance(state.source, frozenset)
        known = len(rows)
        rows = rows[state.source or 0 :]
    elif span is not None:
        low, high = span
    elif declared.cursor and mark is not None:
        low = mark - declared.lookback
    if low is not None:
        rows = [row for row in rows if row["seq"] is not None and row["seq"] >= low]
    if high is not None:
        rows = [row for row in rows if row["seq"] is not None and row["seq"] <= high]
    read = len(rows)
    if declared.mode == "append" and declared.cursor and mark is not None:
        rows = [row for row in rows if row["seq"] > mark]
    largest = max((row["seq"] for row in rows if row["seq"] is not None), default=None) if declared.cursor else None
    present = [name for name in columns if name in given]
    shown = tuple(
        dict.fromkeys(columns) | {name: value for name, value in masked(row, declared, key).items() if name in present}
        for row in rows
    )
    return Landed(
        mode=declared.mode, columns=columns, rows=shown, read=read, held=state.batch, state=known, largest=largest
    )


def keys_of(declared: Declared, state: State, rows: list[Row], *, key: bytes) -> Landed:
    """The keys of all rows, read to find those that are gone."""
    shown = tuple({name: masked(row, declared, key)[name] for name in declared.key} for row in rows)
    columns = {name: shown_columns(BASE, declared)[name] for name in declared.key}
    return Landed(mode="keys", columns=columns, rows=shown, read=len(rows), held=state.batch, state=state.source)


def key_of(row: Row, declared: Declared) -> Key:
    return tuple(row[name] for name in declared.key)


def older(new: int | None, old: int | None) -> bool:
    """Null is older than any value."""
    return old is not None and (new is None or new < old)


@dataclass
class _Sorted:
    good: dict[Key, Row] = field(default_factory=dict)
    seen: set[Key] = field(default_factory=set)
    spared: set[Key] = field(default_factory=set)
    bad: list[Row] = field(default_factory=list)


def _sorted(declared: Declared, rows: tuple[Row, ...]) -> _Sorted:
    """Rows that can be loaded, and those without a key of their own."""
    found = _Sorted()
    by_key: dict[Key, list[Row]] = {}
    for row in rows:
        if any(value is None for value in key_of(row, declared)):
            found.bad.append(row | {"_reason": "null_key"})
        else:
            by_key.setdefault(key_of(row, declared), []).append(row)
    for key, same in by_key.items():
        found.seen.add(key)
        if len(same) == 1:
            found.good[key] = same[0]
            continue
        if declared.rank:
            same = sorted(same, key=lambda row: (row["rank"] is not None, row["rank"] or 0))
            found.good[key] = same.pop()
        else:
            found.spared.add(key)
        found.bad += [row | {"_reason": "doubled_key"} for row in same]
    return found


def applied(
    declared: Declared,
    state: State,
    landed: Landed,
    *,
    batch: int,
    content: int,
    moment: dt.datetime,
    approved: bool = False,
    always: bool = False,
) -> Outcome:
    """What bronze is after a batch, under its id.

    Args:
        content: the id under which it was landed.
        moment: what ``_modified_at`` becomes.
        approved: deletes pass.
        always: its id is committed whether or not a row changed.
    """
    keys_only = landed.mode == "keys"
    counts = Counter(rows_read=landed.read)
    stamp = {"_modified_at": moment, "_batch_id": batch}
    if state.columns is None and keys_only:
        return Outcome(end="succeeded", after=state, figures=_figures(counts))
    columns = state.columns if keys_only else landed.columns
    assert columns is not None
    evolves = state.columns is not None and columns != state.columns
    after = {key: dict.fromkeys(columns) | row for key, row in state.rows.items()}
    touched: set[Key] = set()
    left_alone: set[Key] = set()
    sorted_ = _Sorted()
    if landed.mode == "append":
        for row in landed.rows:
            key = (len(after),)
            after[key] = row | {"_is_current": True, "_is_deleted": False} | stamp
            touched.add(key)
        counts["inserted"] = len(landed.rows)
    elif keys_only:
        sorted_.seen = {key_of(row, declared) for row in landed.rows}
        counts["unchanged"] = landed.read
    else:
        sorted_ = _sorted(declared, landed.rows)
        if sorted_.bad and not declared.quarantine:
            return Outcome(end="keys", after=state)
        counts["quarantined"] = len(sorted_.bad)
        for key, row in sorted_.good.items():
            what = _what(declared, row, after.get(key))
            counts[what] += 1
            if what == "late":
                left_alone.add(key)
            elif what != "unchanged":
                gone = declared.flag and bool(row["gone"])
                after[key] = row | {"_is_current": not gone, "_is_deleted": gone} | stamp
                touched.add(key)
    if landed.mode in ("full", "keys"):
        vanished = [key for key, row in after.items() if row["_is_current"] and key not in sorted_.seen]
        # Only rows that were there before the load can have vanished from it.
        if vanished and len(vanished) >= declared.floor and not approved:
            current = state.current
            if len(vanished) > declared.ratio * current:
                return Outcome(end="stopped", after=state, landed=landed, deletes=len(vanished))
        for key in vanished:
            after[key] = after[key] | {"_is_current": False, "_is_deleted": True} | stamp
            touched.add(key)
        counts["deleted"] += len(vanished)
    committed = bool(touched) or evolves or state.columns is None or always
    bad = tuple(sorted_.bad)
    left_alone |= sorted_.spared
    if not committed:
        return Outcome(
            end="succeeded",
            after=state,
            figures=_figures(counts),
            quarantine=bad,
            landed=landed,
            left_alone=frozenset(left_alone),
        )
    new = State(
        columns=columns,
        rows=after,
        batch=batch,
        content=content,
        versions=_followed(state, after, touched, columns, moment=moment, batch=batch) if declared.history else {},
        source=landed.state,
    )
    return Outcome(
        end="succeeded",
        after=new,
        figures=_figures(counts),
        committed=True,
        quarantine=bad,
        landed=landed,
        left_alone=frozenset(left_alone),
    )


def _what(declared: Declared, new: Row, old: Row | None) -> str:
    gone = declared.flag and bool(new["gone"])
    if old is None:
        return "inserted"
    if declared.sequence is not None and older(new[declared.sequence], old[declared.sequence]):
        return "late"
    if gone and old["_is_current"]:
        return "deleted"
    if any(old[name] != value for name, value in new.items()) or (not gone and not old["_is_current"]):
        return "updated"
    return "unchanged"


def _figures(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in FIGURES}


def _followed(
    state: State,
    after: dict[Key, Row],
    touched: set[Key],
    columns: Columns,
    *,
    moment: dt.datetime,
    batch: int,
) -> dict[Key, tuple[Row, ...]]:
    """The history: a version for each touched row that is there, the one before closed; moments only ever grow."""
    known = (one[name] for found in state.versions.values() for one in found for name in ("_valid_from", "_valid_to"))
    moment = max([moment, *(one + dt.timedelta.resolution for one in known if one is not None)])
    versions = dict(state.versions)
    for key in touched:
        row = after[key]
        own = {name: row[name] for name in columns}
        found = list(versions.get(key, ()))
        held = found[-1] if found and found[-1]["_valid_to"] is None else None
        if held is not None and row["_is_current"] and all(held.get(name) == value for name, value in own.items()):
            continue
        if held is not None:
            found[-1] = held | {"_valid_to": moment, "_is_deleted": not row["_is_current"], "_batch_id": batch}
        if row["_is_current"]:
            found.append(own | {"_valid_from": moment, "_valid_to": None, "_is_deleted": False, "_batch_id": batch})
        if found:
            versions[key] = tuple(found)
    return versions


def assert_intervals(state: State) -> None:
    """Versions of a key neither overlap nor leave a gap but where the row was gone; current rows have one open."""
    open_ = {key for key, found in state.versions.items() if found[-1]["_valid_to"] is None}
    assert open_ == {key for key, row in state.rows.items() if row["_is_current"]}
    for found in state.versions.values():
        for one, two in pairwise(found):
            assert one["_valid_to"] is not None
            assert one["_valid_from"] < one["_valid_to"] <= two["_valid_from"]
            assert one["_is_deleted"] or one["_valid_to"] == two["_valid_from"]
