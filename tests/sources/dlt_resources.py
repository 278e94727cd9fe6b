"""dlt sources and resources of all kinds, as teams write them; what they read lies in a folder of the test's."""

# ruff: noqa: B008, T201 - dlt's own way to declare a cursor; a source that prints

from __future__ import annotations

import datetime as dt
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa

UTC = dt.UTC


def stored(folder: str) -> list[dict[str, Any]]:
    """The rows of the Arrow files in a folder, in the order of their names."""
    rows: list[dict[str, Any]] = []
    for file in sorted(Path(folder).glob("*.arrow")):
        rows += pa.ipc.open_file(file.read_bytes()).read_all().to_pylist()
    return rows


@dlt.source(name="suite")
def suite(folder: str, key: str = "id") -> Any:
    """Rows of files, those of which the key is above what was read before."""

    @dlt.resource(name="rows")
    def rows(since: Any = dlt.sources.incremental(key, initial_value=None)) -> Iterator[Any]:
        yield stored(folder)

    @dlt.resource(name="broken")
    def broken() -> Iterator[Any]:
        yield {"id": 1}
        yield from ({"id": 2} for _ in range(2000))
        yield {"id": stored(folder)[0]["name"]}

    return rows, broken


def plain(count: int = 3, name: str = "x") -> Iterator[dict[str, Any]]:
    """A function that knows nothing of dlt."""
    for number in range(count):
        yield {"id": number, "name": f"{name}{number}"}


ROWS = [{"id": 1}, {"id": 2}]


@dlt.resource
def many_types() -> Iterator[Any]:
    yield {
        "whole": 2**63 - 1,
        "ratio": 0.1,
        "amount": Decimal("0.10"),
        "yes": True,
        "text": "Zoë",
        "seen": dt.datetime(2024, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        "at": dt.datetime(2024, 1, 1),
        "day": dt.date(2024, 1, 1),
        "clock": dt.time(1, 2, 3),
        "data": b"\x00\xff",
        "nested": {"a": [1, None, {"b": Decimal("1.10"), "c": dt.date(2024, 1, 1)}]},
        "items": ["é", 1.5],
        "empty": None,
    }
    yield [{"whole": None, "ratio": 1}]


@dlt.resource(
    columns={
        "id": {"data_type": "bigint"},
        "amount": {"data_type": "decimal", "precision": 18, "scale": 2},
        "rate": {"data_type": "decimal"},
        "at": {"data_type": "timestamp", "timezone": False},
        "seen": {"data_type": "timestamp"},
        "extra": {"data_type": "json"},
        "day": {"data_type": "date"},
        "flag": {"data_type": "bool"},
        "data": {"data_type": "binary"},
        "clock": {"data_type": "time"},
        "ratio": {"data_type": "double"},
        "untyped": {"nullable": True},
    }
)
def hinted() -> Iterator[Any]:
    yield {"id": 1, "amount": "1.50", "seen": "2024-01-01T00:00:00Z", "extra": {"a": 1}, "untyped": 7}
    yield {"id": 2, "seen": dt.datetime(2024, 1, 1), "at": dt.datetime(2024, 1, 1), "day": "2024-02-29"}


@dlt.resource
def tables() -> Iterator[Any]:
    table = pa.table({"id": pa.array([1, 2], pa.int32()), "at": pa.array([1, 2], pa.timestamp("ms"))})
    yield table
    yield table.to_batches()[0]
    yield {"id": 3, "at": None}


@dlt.resource
def growing() -> Iterator[Any]:
    yield [{"id": number} for number in range(10)]
    yield {"id": 11, "later": 1}


@dlt.resource
def changing(text: str) -> Iterator[Any]:
    yield [{"id": number, "n": 1} for number in range(10)]
    yield {"id": 11, "n": text}


@dlt.resource
def failing(text: str) -> Iterator[Any]:
    yield [{"id": number} for number in range(10_000)]
    raise RuntimeError(f"the service said {text}")


@dlt.resource
def leaving() -> Iterator[Any]:
    yield [{"id": number} for number in range(10_000)]
    sys.exit(0)


@dlt.resource
def vanishing() -> Iterator[Any]:
    yield [{"id": number} for number in range(10_000)]
    os._exit(0)


@dlt.resource
def endless(folder: str) -> Iterator[Any]:
    Path(folder, "begun").touch()
    Path(folder, str(os.getpid())).touch()
    yield [{"id": number} for number in range(2000)]
    time.sleep(600)
    yield {"id": 1}


@dlt.resource
def odd() -> Iterator[Any]:
    yield 17


@dlt.resource
def nothing() -> Iterator[Any]:
    yield from ()


@dlt.resource(table_name=lambda row: row["kind"])
def events() -> Iterator[Any]:
    yield [{"kind": "push", "n": 1}, {"kind": "pull", "n": 2}, {"kind": "push", "n": 3}]


@dlt.resource
def marked() -> Iterator[Any]:
    yield {"id": 1}
    yield dlt.mark.with_table_name({"id": 2}, "other")


@dlt.resource
def asked_from(
    updated: Any = dlt.sources.incremental("updated", initial_value="2000-01-01T00:00:00Z"),
) -> Iterator[Any]:
    """Rows that tell from when on they were asked for."""
    asked = updated.last_value
    for text in ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00.5Z", "2024-01-02T00:00:00Z", "2024-01-03T00:00:00+00:00"):
        yield {"updated": text, "asked": asked}


@dlt.resource
def asked_from_number(step: int, id: Any = dlt.sources.incremental("id", initial_value=0)) -> Iterator[Any]:
    first = id.last_value
    for number in range(first, 10, step):
        yield {"id": number, "asked": first}


@dlt.resource
def asked_from_time(
    seen: Any = dlt.sources.incremental("seen", initial_value=dt.datetime(2000, 1, 1, tzinfo=UTC)),
) -> Any:
    asked = str(seen.last_value)[:10]
    for day in (1, 2, 3):
        yield {"seen": dt.datetime(2024, 1, day, tzinfo=UTC), "asked": asked}


@dlt.resource
def counting(most: int) -> Iterator[Any]:
    """What was read before is kept in the resource's own state."""
    state = dlt.current.resource_state()
    for number in range(state.get("next", 0), most):
        yield {"id": number}
        state["next"] = number + 1


@dlt.resource
def parents() -> Iterator[Any]:
    yield [{"id": 1}, {"id": 2}]


@dlt.transformer(data_from=parents)
def children(parent: Any) -> Iterator[Any]:
    for row in parent if isinstance(parent, list) else [parent]:
        yield {"parent": row["id"], "child": row["id"] * 10}


@dlt.transformer(data_from=parents, parallelized=True)
def deferred(parent: Any) -> Any:
    for row in parent if isinstance(parent, list) else [parent]:
        yield {"id": row["id"]}


@dlt.source(name="family")
def family() -> Any:
    return parents, children, deferred


@dlt.source(name="crm", section="crm")
def configured(token: str = dlt.secrets.value, limit: int = dlt.config.value) -> Any:
    def contacts() -> Iterator[Any]:
        yield {
            "token": token,
            "limit": limit,
            "home": os.environ.get("HOME"),
            "leak": os.environ.get("EDP_TEST_SECRET"),
        }

    return dlt.resource(contacts, name="contacts")


@dlt.resource
def talking(text: str) -> Iterator[Any]:
    print(text)
    print(text, file=sys.stderr)
    os.write(1, text.encode())
    yield {"id": 1}


@dlt.resource
def writing(folder: str, text: str, way: str) -> Iterator[Any]:
    yield {"id": 1}
    if way == "file":
        Path(folder, "rows.txt").write_text(text)
    elif way == "temp":
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(text.encode())
            file.flush()
    elif way == "child":
        status = os.system(f"echo {text} > {folder}/rows.txt")
        if status:
            raise OSError(27, "File too large")
    elif way == "pipeline":
        pipeline = dlt.pipeline("leaky", pipelines_dir=folder, destination="filesystem")
        pipeline.extract([{"text": text}], table_name="rows")
