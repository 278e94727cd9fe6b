"""A plan as data: what an apply will do to the control tables, exactly, and what it was made from."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from platform_core.control.store.rows import AppliedState, RowKey
from platform_core.errors import PlanError
from platform_core.specs.base import Model

FORMAT = 2
"""Version of the plan's file; another one is refused."""


class Action(StrEnum):
    """What happens to a row."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Origin(StrEnum):
    """Where changes come from."""

    GIT = "git"
    SQL = "sql"


class EndReason(StrEnum):
    """Why an override ends."""

    EXPIRED = "expired"
    SETTLED = "settled"
    DELETED = "deleted"
    ROLLED_BACK = "rolled back"


class MarkKind(StrEnum):
    """Why a change deserves a second look."""

    PRIVACY = "privacy"
    RELOAD = "reload"
    DELETIONS = "deletions"
    LOCATION = "location"
    READERS = "readers"
    OVERRIDE = "override"


class Mark(Model):
    """Something about a change that a person should know before it is applied.

    Args:
        message: what it is, in one line.
        consequence: what happens to the data.
        reload: what would bring the data in line: ``full``; None: nothing is needed.
        approval: whether the plan is applied only with a person's reason.
    """

    kind: MarkKind
    message: str
    consequence: str = ""
    reload: str | None = None
    approval: bool = True


class FieldChange(Model):
    """One field of a row, as deep as it differs; None stands for what is not there.

    Args:
        path: as a person writes it in YAML, joined by dots.
        place: file and line, where the new value is written.
    """

    path: str
    before: Any = None
    after: Any = None
    place: str | None = None


class Reach(Model):
    """What lies downstream of a change; each part sorted by name.

    Args:
        assets: tables of the lake.
        dbt_models: written like tables.
        dashboards: written ``workstream.dashboard.name``.
        owners: who answers for all these.
        locations: where they are declared.
    """

    assets: tuple[str, ...] = ()
    dbt_models: tuple[str, ...] = ()
    dashboards: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.assets or self.dbt_models or self.dashboards)


class Change(Model):
    """What happens to one row.

    Args:
        place: file and line of the declaration; None for what is deleted.
        before: the row by column, as it must be found; None: there is none.
        after: the row by column, as it will be; None: it will be gone.
        git_commit: of the control files it comes from.
    """

    action: Action
    kind: str
    location: str
    address: str
    place: str | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    fields: tuple[FieldChange, ...] = ()
    marks: tuple[Mark, ...] = ()
    reach: Reach = Reach()
    git_commit: str | None = None

    @property
    def key(self) -> RowKey:
        """Which row it is."""
        return RowKey(self.kind, self.location, self.address)


class Overridden(Model):
    """A value, or a whole row, that the environment holds in the place of what git says, and that a plan leaves alone.

    Args:
        field: where it stands in the row, as a person writes it in YAML; empty: the row as a whole.
        git: what git says; None: nothing, or no such row.
        value: what holds; None: nothing, or no such row.
        expires: last day, UTC, on which it holds.
        file: the reviewed SQL change that made it.
        serial: of the apply that made it.
    """

    kind: str
    location: str
    address: str
    field: str
    git: Any = None
    value: Any = None
    owner: str
    expires: dt.date
    reason: str
    file: str
    serial: int


class EndedOverride(Model):
    """An override that is forgotten when the plan is applied.

    Args:
        path: where it stands in the row; empty: the row as a whole.
    """

    kind: str
    location: str
    address: str
    path: tuple[str, ...]
    why: EndReason
    owner: str
    expires: dt.date
    file: str

    @property
    def key(self) -> RowKey:
        """Which row it is about."""
        return RowKey(self.kind, self.location, self.address)


class Base(Model):
    """The state of the control tables that a plan was made from."""

    serial: int
    mark: str

    @classmethod
    def of(cls, state: AppliedState) -> Self:
        """The state, as a plan remembers it."""
        return cls(serial=state.serial, mark=state.mark)


class Plan(Model):
    """What an apply does, and nothing else.

    Args:
        format: of the file.
        environment: whose control tables it is for.
        release: version of the platform that made it.
        specs: digest of what specs can hold in that version.
        base: the state that it was made from.
        author: who made it.
        made_at: UTC.
        locations: whose rows it covers; rows of others stay as they are.
        unchanged: rows that stay as they are.
        restores: the serial that it goes back to; None: it comes from git.
        origin: control files, or a reviewed SQL change.
        overrides: what it leaves alone, though git says something else.
        ends: overrides that are forgotten once it is applied.
        changes: in the order in which they are shown.
        marks: about the plan as a whole.
        reach: of all changes together.
        notes: what could not be looked at.
        digest: SHA-256 (hex) of all else; it tells an edited plan.
    """

    format: int = FORMAT
    environment: str
    release: str
    specs: str
    base: Base
    git_commit: str | None = None
    author: str
    made_at: dt.datetime
    locations: tuple[str, ...]
    unchanged: int = 0
    restores: int | None = None
    origin: Origin = Origin.GIT
    overrides: tuple[Overridden, ...] = ()
    ends: tuple[EndedOverride, ...] = ()
    changes: tuple[Change, ...] = ()
    marks: tuple[Mark, ...] = ()
    reach: Reach = Reach()
    notes: tuple[str, ...] = ()
    digest: str = Field(default="", description="SHA-256 of the plan without this field.")

    def sealed(self) -> Self:
        """The same plan with its digest."""
        return self.model_copy(update={"digest": self._digest()})

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to apply."""
        return not self.changes and not self.ends

    def count(self, action: Action) -> int:
        """How many changes do this."""
        return sum(change.action is action for change in self.changes)

    def all_marks(self) -> Iterator[tuple[Change | None, Mark]]:
        """Every mark with its change; None: it is about the plan as a whole."""
        for mark in self.marks:
            yield None, mark
        for change in self.changes:
            for mark in change.marks:
                yield change, mark

    @property
    def needs_approval(self) -> bool:
        """Whether it is applied only with a person's reason."""
        return any(mark.approval for _, mark in self.all_marks())

    def as_json(self) -> str:
        """The plan's file."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"

    def _digest(self) -> str:
        told = json.dumps(self.model_dump(mode="json", exclude={"digest"}), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(told.encode()).hexdigest()


def read_plan(file: Path) -> Plan:
    """Read the file of a plan.

    Raises:
        PlanError: there is none, it is no plan of this format, or it was edited.
    """
    try:
        plan = Plan.model_validate_json(file.read_bytes())
    except OSError as error:
        raise PlanError(
            f"{file}: the plan cannot be read: {error.strerror}\n  make one: edp plan --out {file}"
        ) from None
    except ValidationError:
        raise PlanError(
            f"{file}: this is no plan of this version of the platform\n  make one: edp plan --out {file}"
        ) from None
    if plan.format != FORMAT:
        raise PlanError(f"{file}: the plan has format {plan.format}; this version reads {FORMAT}\n  plan again")
    if plan.digest != plan.sealed().digest:
        raise PlanError(
            f"{file}: the plan was edited after it had been made\n  an apply does exactly what was planned: "
            "change the control files and plan again"
        )
    return plan
