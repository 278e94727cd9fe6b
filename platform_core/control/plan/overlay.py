"""Lays overrides over what git says: a plan leaves them alone until they expire, or until git says the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from platform_core.control.plan.declared import written_path
from platform_core.control.plan.difference import Path, content_of, field_differences
from platform_core.control.plan.plan import EndedOverride, EndReason, Mark, MarkKind, Overridden
from platform_core.control.store.codec import Content, Row, codec
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.overrides import Override
from platform_core.control.store.rows import RowKey


@dataclass(frozen=True, kw_only=True)
class Overlaid:
    """Rows as they should be while overrides hold.

    Args:
        rows: of git, with live overrides in them.
        standing: overrides that hold.
        ended: overrides that do not, and are to be forgotten.
        marks: about overrides of which git now says something else than when they were made.
        deleted: rows that git no longer has, with the overrides that go with them.
    """

    rows: Mapping[RowKey, Row]
    standing: tuple[Overridden, ...] = ()
    ended: tuple[EndedOverride, ...] = ()
    marks: tuple[Mark, ...] = ()
    deleted: Mapping[RowKey, tuple[Override, ...]]


def overlaid(
    rows: Mapping[RowKey, Row], overrides: Sequence[Override], *, today: dt.date, locations: Collection[str]
) -> Overlaid:
    """What git says, with overrides in it.

    Args:
        rows: what git says.
        overrides: of the rows that are planned.
        today: UTC.
        locations: that git still has; in others a row is not kept by an override.
    """
    found: dict[RowKey, Row] = dict(rows)
    standing: list[Overridden] = []
    ended: list[EndedOverride] = []
    marks: list[Mark] = []
    deleted: dict[RowKey, list[Override]] = {}
    for each in overrides:
        now = git_value(rows, each)
        if same(now, each.value):
            ended.append(ended_override(each, EndReason.SETTLED))
        elif not each.is_live(today):
            ended.append(ended_override(each, EndReason.EXPIRED))
        elif each.key not in rows and (each.path or each.key.location not in locations):
            deleted.setdefault(each.key, []).append(each)
            ended.append(ended_override(each, EndReason.DELETED))
        else:
            _lay_over(found, each)
            standing.append(_shown(each, now))
            if not same(now, each.git_value):
                marks.append(_moved_mark(each, now))
    return Overlaid(
        rows=found,
        standing=tuple(standing),
        ended=tuple(ended),
        marks=tuple(marks),
        deleted={key: tuple(of_row) for key, of_row in deleted.items()},
    )


def recomputed(
    git: Content | None,
    before: Content | None,
    after: Content | None,
    *,
    known: Sequence[Override],
    new: Override,
    renewed: Collection[str],
) -> Iterator[Override]:
    """The overrides of one row after a reviewed change.

    Args:
        git: the row as git says it; None: it has none.
        before: the row as it was; None: there was none.
        after: the row as it is now; None: it is gone.
        known: overrides that the row had.
        new: stands for one of the change; its path and values are filled in.
        renewed: columns that the change has written, be it with the value that they had.
    """
    if git is None or after is None:
        if not (git is None and after is None):
            yield replace(new, path=(), git_value=git, value=after)
        return
    earlier = {each.path: each for each in known}
    for path, old, now in field_differences(git, after):
        kept = earlier.get(path)
        is_kept = kept is not None and path[0] not in renewed and same(value_at(before or {}, path), now)
        if kept is not None and is_kept:
            yield kept
        else:
            yield replace(new, path=path, git_value=old, value=now)


def git_content(live: Content | None, known: Sequence[Override]) -> Content | None:
    """A row as git said it when it was overridden: the live row with its overrides taken back."""
    for each in known:
        if not each.path:
            return None if each.git_value is None else dict(each.git_value)
    found = live
    for each in known:
        if found is not None:
            found = with_value(found, each.path, each.git_value)
    return found


def git_value(rows: Mapping[RowKey, Row], each: Override) -> Any:
    """What git says now in the place of an override; None: nothing."""
    row = rows.get(each.key)
    if row is None:
        return None
    content = content_of(each.key, row)
    return content if not each.path else value_at(content, each.path)


def value_at(content: Mapping[str, Any], path: Path) -> Any:
    """The value at a path; None: there is none."""
    found: Any = content
    for part in path:
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def with_value(content: Mapping[str, Any], path: Path, value: Any) -> Content:
    """A copy of a row with another value at a path; None takes it out of a nested mapping."""
    column, *keys = path
    found = dict(content)
    inner = found.get(column)
    found[column] = _nested(inner if isinstance(inner, Mapping) else {}, keys, value) if keys else value
    return found


def _nested(mapping: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    first, *keys = path
    found = dict(mapping)
    inner = found.get(first)
    if keys and (value is not None or isinstance(inner, Mapping)):
        found[first] = _nested(inner if isinstance(inner, Mapping) else {}, keys, value)
    elif not keys and value is not None:
        found[first] = value
    elif not keys:
        found.pop(first, None)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same; 1, 1.0 and true are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def ended_override(each: Override, why: EndReason) -> EndedOverride:
    """An override that a plan ends."""
    return EndedOverride(
        **each.key._asdict(), path=each.path, why=why, owner=each.owner, expires=each.expires, file=each.file
    )


def deletion_mark(overrides: Sequence[Override]) -> Mark:
    """That a row goes which somebody has overridden."""
    told = ", ".join(dict.fromkeys(f"{each.file} ({each.owner}, until {each.expires:%Y-%m-%d})" for each in overrides))
    return Mark(kind=MarkKind.OVERRIDE, message=f"it is overridden by {told}", consequence="the override ends with it")


def _moved_mark(each: Override, now: Any) -> Mark:
    what = f"{each.key} {_written(each)}".rstrip()
    said = "no longer has it" if now is None else "says something else"
    return Mark(
        kind=MarkKind.OVERRIDE,
        message=f"{what} is overridden by {each.file}, and git {said} since",
        consequence=f"what {each.owner} set holds until {each.expires:%Y-%m-%d}, then what git says",
        approval=False,
    )


def _lay_over(rows: dict[RowKey, Row], each: Override) -> None:
    rows_of = codec(KINDS[each.key.kind])
    if each.path:
        rows[each.key] = rows_of.row(with_value(content_of(each.key, rows[each.key]), each.path, each.value))
    elif each.value is None:
        del rows[each.key]
    else:
        rows[each.key] = rows_of.row(each.value)


def _shown(each: Override, now: Any) -> Overridden:
    return Overridden(
        **each.key._asdict(),
        field=_written(each),
        git=now,
        value=each.value,
        owner=each.owner,
        expires=each.expires,
        reason=each.reason,
        file=each.file,
        serial=each.serial,
    )


def _written(each: Override) -> str:
    return ".".join(written_path(each.key.kind, each.path))
