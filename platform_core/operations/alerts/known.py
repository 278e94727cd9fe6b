"""What open alerts are about, so that what follows from it is not told once more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from platform_core.control.alert_records import Alert
from platform_core.operations.alerts.facts import Surroundings
from platform_core.specs.alerts import AlertEvent
from platform_core.specs.table import TableRef

LATE, STALE = "late:", "stale:"
"""Begin of what such alerts say that fails: ``late:crm``, ``late:crm.bronze.orders``, ``stale:crm.dashboard.sales``."""

UNWRITTEN = 0
"""Stands for an alert that this very look is about to write."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What open alerts are about.

    Args:
        names: of tables that failed or are late, of steps, and of checks, each with the id of its alert.
        workstreams: of which a run failed as a whole, or did not come.
    """

    names: Mapping[str, int] = field(default_factory=dict)
    workstreams: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, alerts: Iterable[Alert]) -> Self:
        """What these alerts, all open, are about."""
        names: dict[str, int] = {}
        workstreams: dict[str, int] = {}
        for alert in alerts:
            names |= {name.removeprefix(LATE): alert.id for name in alert.failing if not name.startswith(STALE)}
            whole = bool(alert.job) and not alert.failing
            if whole or (alert.event is AlertEvent.LATE and f"{LATE}{alert.workstream}" in alert.failing):
                workstreams[alert.workstream] = alert.id
        return cls(names=names, workstreams=workstreams)

    def and_also(self, *, tables: Iterable[TableRef] = (), workstreams: Iterable[str] = ()) -> Self:
        """This, and what is about to be told."""
        return type(self)(
            names={**dict.fromkeys(map(str, tables), UNWRITTEN), **self.names},
            workstreams={**dict.fromkeys(workstreams, UNWRITTEN), **self.workstreams},
        )

    def explaining(self, refs: Iterable[TableRef]) -> set[int]:
        """Ids of the alerts that are about any of these."""
        found = {self.names.get(str(ref), self.workstreams.get(ref.workstream)) for ref in refs}
        return {each for each in found if each is not None}

    def explains(self, refs: Iterable[TableRef], *, around: Surroundings) -> bool:
        """Whether something that these are made from is what an open alert is about."""
        return bool(self.explaining(around.upstream(refs)))


NOTHING = Known()
"""No alert is open."""
