"""How entries are run: what is taken, and nonsense that is refused with its file and line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from platform_core.control.load import load_manifest
from platform_core.control.store.codec import codec
from platform_core.control.store.kinds import KINDS
from platform_core.errors import ConfigError
from platform_core.specs.base import Spec
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.run_policy import Backoff, Retries
from platform_core.specs.upkeep import UpkeepSpec

POLICY = {
    "priority": 7,
    "retries": {"max": 2, "delay": "1 minute", "backoff": "linear", "jitter": "full"},
    "timeout": "90 minutes",
    "paused": True,
}
ENTRIES: dict[str, tuple[type[Spec], dict[str, Any]]] = {
    "ingestion": (IngestionSpec, {"source": "shop", "object": "t", "table": "t", "mode": "full", "key": ("id",)}),
    "processing": (ProcessingSpec, {"layer": "silver", "name": "t", "kind": "python", "function": "m:f"}),
    "dbt": (DbtSpec, {"name": "t", "project": "dbt/t"}),
    "refresh": (RefreshSpec, {"name": "t", "type": "page", "shows": ("gold.t",)}),
    "upkeep": (UpkeepSpec, {"name": "t", "operation": "vacuum"}),
}
LOCATION = """\
location: crm
workstreams:
  - {name: crm, owners: ["team:crm"]}
"""
CONNECTIONS = """\
connections:
  - {name: shop, type: sqlite, path: /shop.db}
"""
TABLES = """\
source: shop
tables:
  - object: riders
    mode: full
    key: [id]
"""


@pytest.mark.parametrize("kind", ENTRIES)
def test_every_entry_takes_the_same_policy_and_keeps_it_in_the_control_tables(kind: str) -> None:
    model, fields = ENTRIES[kind]
    spec = model(workstream="crm", **fields, **POLICY)  # type: ignore[arg-type]
    rows = codec(KINDS[kind])

    assert (
        rows.decode(rows.encode(spec, root=Path("/crm"), state=Path("/state")), root=Path("/crm"), state=Path("/state"))
        == spec
    )
    assert {
        name: rows.content(rows.encode(spec, root=Path("/crm"), state=Path("/state")))[name] for name in POLICY
    } == POLICY


@pytest.mark.parametrize("kind", ENTRIES)
def test_an_entry_that_says_nothing_is_run_once_without_a_limit(kind: str) -> None:
    model, fields = ENTRIES[kind]
    spec: Any = model(workstream="crm", **fields)

    assert (spec.priority, spec.retries, spec.timeout, spec.paused) == (None, None, None, False)


@pytest.mark.parametrize(
    ("backoff", "factors"), [(Backoff.EXPONENTIAL, [1, 3, 7]), (Backoff.LINEAR, [1, 2, 3]), (Backoff.NONE, [1, 1, 1])]
)
def test_waits_grow_with_the_tries(backoff: Backoff, factors: list[int]) -> None:
    assert Retries(max=3, backoff=backoff).waits() == tuple(timedelta(seconds=30 * factor) for factor in factors)


@pytest.mark.parametrize("count", [1, 20])
def test_absurd_waits_are_refused_whatever_their_number(count: int) -> None:
    with pytest.raises(ValidationError, match=r"the waits between tries come to [0-9,.]+ hours; at most 12 are useful"):
        Retries(max=count, delay="999999 weeks")


def faults(folder: Path, **files: str) -> str:
    """What `edp check` says of a location with the given files in the place of good ones."""
    texts = {"location": LOCATION, "connections": CONNECTIONS, "ingestion/shop": TABLES}
    for name, text in {**texts, **{name.replace("__", "/"): text for name, text in files.items()}}.items():
        file = folder / "crm" / "control" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with pytest.raises(ConfigError) as found:
        load_manifest(folder / "crm" / "control", environment="dev", state=folder / "state")
    return str(found.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("priority: 101", "'priority' must be at most 100"),
        ("priority: high", "'priority': expected a whole number, got a text"),
        ("timeout: 0 seconds", "'timeout': must be between 1 second and 7 days"),
        ("timeout: 2 weeks", "'timeout': must be between 1 second and 7 days"),
        (
            "timeout: soon",
            "'timeout': must read like '2 hours': a whole number and seconds, minutes, hours, days or weeks",
        ),
        ("retries: {max: 0}", "'max' must be at least 1"),
        ("retries: {max: 21}", "'max' must be at most 20"),
        ("retries: {delay: 1 minute}", "'max' is missing"),
        ("retries: {max: 3, backof: linear}", "unknown key 'backof'"),
        ("retries: {max: 3, jitter: some}", "unknown jitter 'some'"),
        (
            "retries: {max: 10, delay: 10 minutes}",
            "the waits between tries come to 339.3 hours; at most 12 are useful: lower 'max' or 'delay', or choose a "
            "slower 'backoff'",
        ),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    told = faults(tmp_path, ingestion__shop=f"{TABLES}    {line}\n").splitlines()[0]

    assert told.startswith("crm/control/ingestion/shop.yaml:6: ")
    assert said in told


@pytest.mark.parametrize(
    ("schedule", "line", "said"),
    [
        ("cron: '0 6 * *'", 4, "cron '0 6 * *' has 4 fields; five are needed"),
        ("cron: '0 6 31 2 *'", 4, "never comes"),
        ("cron: '0 6 * * *'\n      timezone: Europe/Amsterdm", 5, "unknown time zone 'Europe/Amsterdm'"),
        ("cron: '0 6 * * *'\n      overlap: both", 5, "unknown overlap 'both'"),
        ("cron: '0 6 * * *'\n      catch_up: all", 5, "unknown catch_up 'all'"),
        ("cron: '0 6 * * *'\n      times: 3", 5, "unknown key 'times'"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_with_file_and_line(
    tmp_path: Path, schedule: str, line: int, said: str
) -> None:
    text = LOCATION.replace(
        '{name: crm, owners: ["team:crm"]}', 'name: crm\n    owners: ["team:crm"]\n    schedule: {}'
    )
    text = text.replace(" schedule: {}", f" schedule:\n      {schedule}")
    told = faults(tmp_path, location=text).splitlines()[0]

    assert told.startswith(f"crm/control/location.yaml:{line + 2}: ")
    assert said in told


@pytest.mark.parametrize(("limit", "said"), [("0", "must be at least 1"), ("1001", "must be at most 1000")])
def test_a_limit_of_a_connection_is_one_that_can_be_kept(tmp_path: Path, limit: str, said: str) -> None:
    text = CONNECTIONS.replace("}", f", max_concurrent: {limit}}}")

    told = faults(tmp_path, connections=text).splitlines()[0]
    assert told == f"crm/control/connections.yaml:2: 'max_concurrent' {said}"
