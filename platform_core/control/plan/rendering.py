"""Writes a plan for people: as text for a terminal, as Markdown for a merge request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from platform_core.control.plan.plan import (
    Action,
    Change,
    EndedOverride,
    EndReason,
    FieldChange,
    Mark,
    Origin,
    Overridden,
    Plan,
    Reach,
)

_SYMBOLS = {Action.CREATE: "+", Action.UPDATE: "~", Action.DELETE: "-"}
_LONGEST_VALUE = 70
_MOST_LISTED = 200
_MOST_NAMED = 5


def as_text(plan: Plan) -> str:
    """The plan as lines; the last one tells the counts."""
    lines = [line for change in plan.changes for line in _change_lines(change, plan.origin)]
    lines += [f"! {_mark_text(mark)}" for mark in plan.marks]
    lines += [f"= {overridden_text(each)}" for each in plan.overrides]
    lines += [f"note: {ended_text(each)}" for each in plan.ends]
    if plan.reach and sum(bool(change.reach) for change in plan.changes) > 1:
        lines += ["", f"together they reach: {_reach_text(plan.reach)}"]
    lines += [f"note: {note}" for note in plan.notes]
    if lines:
        lines.append("")
    lines.append(_summary(plan))
    if plan.needs_approval:
        lines.append('Some changes need a reason: apply with --approve "<reason>"')
    return "\n".join(lines)


def as_markdown(plan: Plan) -> str:
    """The plan as a comment of a merge request."""
    lines = [f"### Plan for `{plan.environment}`", "", f"**{_summary(plan).removeprefix('Plan: ')}**", ""]
    marked = [(change, mark) for change, mark in plan.all_marks() if mark.approval]
    if marked:
        lines += ['**Needs a reason** (`edp apply … --approve "<reason>"`)', ""]
        lines += [f"- {_of(change)}{_escaped(_mark_text(mark))}" for change, mark in marked]
        lines.append("")
    if plan.reach:
        lines += [f"**Reaches** {_escaped(_reach_text(plan.reach))}", ""]
    if plan.overrides:
        lines += ["**Overridden** (left as it is until it expires)", ""]
        lines += [f"- {_escaped(overridden_text(each))}" for each in plan.overrides[:_MOST_LISTED]]
        lines += [f"- … and {len(plan.overrides) - _MOST_LISTED:,} more"] if len(plan.overrides) > _MOST_LISTED else []
        lines.append("")
    shown = plan.changes[:_MOST_LISTED]
    if shown:
        lines += ["| | kind | what | change | reaches |", "|---|---|---|---|---|"]
        lines += [_table_row(change, plan.origin) for change in shown]
        if len(plan.changes) > len(shown):
            lines.append(f"| | | … and {len(plan.changes) - len(shown):,} more | | |")
        lines.append("")
    lines += [f"- {_escaped(ended_text(each))}" for each in plan.ends]
    lines += [f"- {_escaped(note)}" for note in plan.notes]
    lines.append(f"Made at serial {plan.base.serial} by {_escaped(plan.author)}; plan `{plan.digest[:12]}`.")
    return "\n".join(lines)


def overridden_text(each: Overridden) -> str:
    """One override that holds, in a line."""
    what = f"{each.kind} {each.address}"
    until = f"until {each.expires:%Y-%m-%d} by {each.owner} ({each.file}: {each.reason})"
    if each.field:
        return f"{what} {each.field}: {_value(each.value)} holds instead of {_value(each.git)} {until}"
    return f"{what} {'is removed' if each.value is None else 'is kept as it is'} {until}"


def ended_text(each: EndedOverride) -> str:
    """One override that ends, in a line."""
    what = f"the override of {each.kind} {each.address}{' ' if each.path else ''}{'.'.join(each.path)} by {each.file}"
    return (
        f"{what} "
        + {
            EndReason.EXPIRED: f"({each.owner}) expired on {each.expires:%Y-%m-%d}; git counts again",
            EndReason.SETTLED: f"({each.owner}) is settled: git says the same now",
            EndReason.DELETED: f"({each.owner}) ends with the row",
            EndReason.ROLLED_BACK: f"({each.owner}) ends with this rollback",
        }[each.why]
    )


def _gone(origin: Origin) -> str:
    return "deleted by this change" if origin is Origin.SQL else "removed from control files"


def _change_lines(change: Change, origin: Origin) -> Iterator[str]:
    where = f"  {change.place}" if change.place else ""
    gone = f"  {_gone(origin)}" if change.action is Action.DELETE else ""
    yield f"{_SYMBOLS[change.action]} {change.kind:<10} {change.address:<30}{where}{gone}".rstrip()
    for field in change.fields:
        at = f"  ({field.place})" if field.place and field.place != change.place else ""
        yield f"    {field.path}: {_values(field)}{at}"
    for mark in change.marks:
        yield f"    ! {_mark_text(mark)}"
    if change.reach:
        yield f"    reaches: {_reach_text(change.reach)}"


def _summary(plan: Plan) -> str:
    created, updated, deleted = (plan.count(action) for action in Action)
    told = (
        f"Plan: {created:,} to create, {updated:,} to update, {deleted:,} to delete, {plan.unchanged:,} unchanged"
        if plan.changes
        else f"Plan: {'no row to change' if plan.ends else 'nothing to do'}, {plan.unchanged:,} unchanged"
    )
    told += f", {len(plan.overrides):,} overridden" if plan.overrides else ""
    # An apply has this to do even where no row changes.
    return told + (f", {_counted_overrides(len(plan.ends))} to end" if plan.ends else "")


def _counted_overrides(number: int) -> str:
    return f"{number:,} override{'' if number == 1 else 's'}"


def _mark_text(mark: Mark) -> str:
    text = f"{mark.kind}: {mark.message}"
    if mark.consequence:
        text += f"; {mark.consequence}"
    return f"{text}; offered: reload: {mark.reload}" if mark.reload else text


def _reach_text(reach: Reach) -> str:
    parts = [
        _counted(reach.assets, "asset"),
        _counted(reach.dbt_models, "dbt model"),
        _counted(reach.dashboards, "dashboard"),
    ]
    text = ", ".join(part for part in parts if part)
    text += f" in {', '.join(reach.locations)}"
    return f"{text}; owners: {', '.join(reach.owners)}" if reach.owners else text


def _counted(names: tuple[str, ...], noun: str) -> str:
    if not names:
        return ""
    listed = ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
    return f"{len(names):,} {noun}{'' if len(names) == 1 else 's'} ({listed})"


def _values(field: FieldChange) -> str:
    if field.before is None:
        return f"+ {_value(field.after)}"
    if field.after is None:
        return f"- {_value(field.before)}"
    return f"{_value(field.before)} -> {_value(field.after)}"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    shown = text if text.isprintable() else json.dumps(text, ensure_ascii=False)
    return shown if len(shown) <= _LONGEST_VALUE else shown[: _LONGEST_VALUE - 1] + "…"


def _table_row(change: Change, origin: Origin) -> str:
    what = f"`{change.address}`" + (f"<br>{_escaped(change.place)}" if change.place else "")
    fields = "<br>".join(f"{_escaped(field.path)}: {_escaped(_values(field))}" for field in change.fields)
    reach = _escaped(_reach_text(change.reach)) if change.reach else ""
    told = fields or {Action.CREATE: "new", Action.UPDATE: "", Action.DELETE: _gone(origin)}[change.action]
    return f"| {_SYMBOLS[change.action]} | {change.kind} | {what} | {told} | {reach} |"


def _of(change: Change | None) -> str:
    return f"`{change.kind} {change.address}`: " if change else ""


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text
