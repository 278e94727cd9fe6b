"""Writes a plan for people: as text for a terminal, as Markdown for a merge request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from platform_core.control.plan.plan import Action, Change, FieldChange, Mark, Plan, Reach

_SYMBOLS = {Action.CREATE: "+", Action.UPDATE: "~", Action.DELETE: "-"}
_LONGEST_VALUE = 70
_MOST_LISTED = 200
_MOST_NAMED = 5


def as_text(plan: Plan) -> str:
    """The plan as lines; the last one tells the counts."""
    lines = [line for change in plan.changes for line in _change_lines(change)]
    lines += [f"! {_mark_text(mark)}" for mark in plan.marks]
    if plan.changes and plan.reach:
        lines += ["", f"reaches besides: {_reach_text(plan.reach)}"]
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
    shown = plan.changes[:_MOST_LISTED]
    if shown:
        lines += ["| | kind | what | change | reaches |", "|---|---|---|---|---|", *map(_table_row, shown)]
        if len(plan.changes) > len(shown):
            lines.append(f"| | | … and {len(plan.changes) - len(shown):,} more | | |")
        lines.append("")
    lines += [f"- {_escaped(note)}" for note in plan.notes]
    lines.append(f"Made at serial {plan.base.serial} by {_escaped(plan.author)}; plan `{plan.digest[:12]}`.")
    return "\n".join(lines)


def _change_lines(change: Change) -> Iterator[str]:
    where = f"  {change.place}" if change.place else ""
    gone = "  removed from control files" if change.action is Action.DELETE else ""
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
    return (
        f"Plan: {created:,} to create, {updated:,} to update, {deleted:,} to delete, {plan.unchanged:,} unchanged"
        if plan.changes
        else f"Plan: nothing to do, {plan.unchanged:,} unchanged"
    )


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


def _table_row(change: Change) -> str:
    what = f"`{change.address}`" + (f"<br>{_escaped(change.place)}" if change.place else "")
    fields = "<br>".join(f"{_escaped(field.path)}: {_escaped(_values(field))}" for field in change.fields)
    reach = _escaped(_reach_text(change.reach)) if change.reach else ""
    told = (
        fields or {Action.CREATE: "new", Action.UPDATE: "", Action.DELETE: "removed from control files"}[change.action]
    )
    return f"| {_SYMBOLS[change.action]} | {change.kind} | {what} | {told} | {reach} |"


def _of(change: Change | None) -> str:
    return f"`{change.kind} {change.address}`: " if change else ""


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text
