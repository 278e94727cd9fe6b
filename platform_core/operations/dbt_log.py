"""What dbt says while it works, free of row values: one line a result, and why it failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from platform_core.engines.messages import clean_text

_RESULTS = ("LogModelResult", "LogTestResult", "LogSeedResult", "LogSnapshotResult", "LogNodeResult")
_MOST_LINES = 20


def event(line: str) -> Mapping[str, Any] | None:
    """One line of dbt's JSON log as a mapping; None for a line that is none."""
    try:
        parsed = json.loads(line)
    except json.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) and "info" in parsed else None


def result_text(line: str) -> str | None:
    """A line for the run's log about one finished model or test; None where dbt says something else."""
    found = event(line)
    if found is None or found["info"]["name"] not in _RESULTS:
        return None
    data = found["data"]
    node = data.get("node_info", {})
    seconds = data.get("execution_time")
    took = f" in {seconds:.1f} s" if isinstance(seconds, (int, float)) else ""
    return f"dbt {node.get('resource_type', 'node')} {node.get('node_name', '?')}: {data.get('status', '?')}{took}"


def printed(line: str) -> str | None:
    """What a command of dbt was asked to print; None where the line is one of its log."""
    found = event(line)
    return str(found["data"].get("msg", "")) if found is not None and found["info"]["name"] == "PrintEvent" else None


def failure_text(lines: Iterable[str]) -> str:
    """Why dbt ended with an error, from all that it printed."""
    said = []
    for line in lines:
        found = event(line)
        if found is None:
            continue
        if found["info"]["level"] == "error" and (text := clean_text(found["info"]["msg"])):
            said.append(text)
    kept = "\n".join(dict.fromkeys(said)).splitlines()[:_MOST_LINES]
    return "dbt failed" + ("\n  " + "\n  ".join(line.strip() for line in kept) if kept else " and did not say why")
