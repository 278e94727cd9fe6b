"""What one refresh of a Power BI dataset leaves for the next: its own request ids, and what it is known to process.

Power BI tells of no refresh who asked for it, nor whether it was of the whole dataset. So it is remembered which tables
and partitions a request of ours came to, and any refresh of at least these shows what ours would.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from platform_core.dashboards.powerbi_options import PowerBIOptions
from platform_core.plugins.interfaces import RefreshRequest

_MOST_IDS = 5
_MOST_PARTS = 2_000


def request_body(options: PowerBIOptions) -> dict[str, Any]:
    """What is asked for."""
    # An enhanced refresh needs at least one parameter; the mode keeps the old data where a refresh fails.
    body: dict[str, Any] = {"type": options.refresh_type, "commitMode": "transactional"}
    if options.tables:
        body["objects"] = [table.model_dump(exclude_none=True) for table in options.tables]
    return body


class Memory:
    """What is remembered of requests of one kind for one dataset."""

    def __init__(
        self,
        of: str,
        *,
        ids: Iterable[str] = (),
        parts: Iterable[tuple[str, str]] = (),
        keep: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """Take what is known.

        Args:
            of: tells the kind of request and the dataset.
            ids: of our own requests, the oldest first.
            parts: tables and partitions that such a request comes to.
            keep: takes the whole memory whenever it has changed.
        """
        self._of = of
        self.ids = list(ids)
        self.parts = frozenset(parts)
        self._keep = keep

    @classmethod
    def read(cls, request: RefreshRequest, *, options: PowerBIOptions) -> Memory:
        """The memory of the dashboard, empty where it asked for something else by then."""
        asked = json.dumps([options.workspace, options.dataset, request_body(options)], sort_keys=True)
        of = hashlib.sha256(asked.encode()).hexdigest()
        found = request.remembered
        if found.get("of") != of:
            return cls(of, keep=request.remember)
        parts = [(str(table), str(partition)) for table, partition in found.get("parts", ())]
        return cls(of, ids=map(str, found.get("ids", ())), parts=parts, keep=request.remember)

    def note_request(self, request_id: str) -> None:
        """Remember a request of ours that was accepted."""
        self.ids = [*self.ids, request_id][-_MOST_IDS:]
        self._save()

    def note_parts(self, parts: frozenset[tuple[str, str]]) -> None:
        """Remember what a completed request of ours came to."""
        if parts != self.parts and len(parts) <= _MOST_PARTS:
            self.parts = parts
            self._save()

    def _save(self) -> None:
        self._keep({"of": self._of, "ids": self.ids, "parts": sorted(self.parts)})
