"""The watermark is what bronze holds, whoever wrote its files."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from platform_core.errors import SchemaError
from platform_core.lake import watermark as module
from platform_core.lake.watermark import watermark

MOMENT = dt.datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=dt.UTC)
VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int": (pa.int32(), [1, 5, 3]),
    "float": (pa.float64(), [0.5, 2.5, float("nan")]),
    "day": (pa.date32(), [dt.date(2026, 1, 1), dt.date(2026, 1, 3), dt.date(2026, 1, 2)]),
    "aware": (pa.timestamp("us", "UTC"), [MOMENT, MOMENT + dt.timedelta(microseconds=1), MOMENT]),
    "naive": (pa.timestamp("us"), [MOMENT.replace(tzinfo=None), dt.datetime(1969, 1, 1), None]),
    "text": (pa.string(), ["a", "é", "b"]),
    "long": (pa.string(), ["x" * 70 + "a", "x" * 70 + "c", "x" * 70 + "b"]),
    "whole": (pa.decimal128(20, 0), [Decimal(1), Decimal(10**18), None]),
    "nothing": (pa.int64(), [None, None, None]),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("writer", ["ours", "delta-rs", "no statistics"])
def test_the_largest_value_is_found_whatever_its_type_and_writer(riders: Any, name: str, writer: str) -> None:
    type_, values = VALUES[name]
    expected = max((value for value in values if value is not None and value == value), default=None)
    for i, value in enumerate(values):
        rows = pa.table({"id": [i], "at": pa.array([value], type_)})
        if writer == "ours":
            riders.load(rows, "incremental", cursor="at")
        else:
            write_deltalake(riders.uri, rows, mode="append")
    if writer == "no statistics":
        forget_statistics(Path(riders.uri))
    assert watermark(riders.table, "at", storage_options={}) == expected


def forget_statistics(folder: Path) -> None:
    for log in (folder / "_delta_log").glob("*.json"):
        log.write_text(re.sub(r',?"stats":"(?:[^"\\]|\\.)*"', "", log.read_text()))


def test_truncated_statistics_give_no_wrong_watermark(riders: Any) -> None:
    late = MOMENT + dt.timedelta(microseconds=400)
    for value in (late, MOMENT):
        write_deltalake(riders.uri, pa.table({"at": pa.array([value], pa.timestamp("us", "UTC"))}), mode="append")
    log = next((Path(riders.uri) / "_delta_log").glob("*0.json")).read_text()
    assert "00:00.123Z" in log, "delta-rs cuts to milliseconds"
    assert watermark(riders.table, "at", storage_options={}) == late


def test_only_files_that_can_hold_it_are_opened(riders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        write_deltalake(riders.uri, pa.table({"at": [i, i + 1]}), mode="append")
    opened: list[str] = []
    largest = module._largest

    def watched(folder: Any, path: str, column: str) -> Any:
        opened.append(path)
        return largest(folder, path, column)

    monkeypatch.setattr(module, "_largest", watched)
    assert watermark(riders.table, "at", storage_options={}) == 5
    assert len(opened) == 1


def test_deleted_rows_count_and_rewrites_do_not_lose_it(riders: Any) -> None:
    def rows(*values: int) -> pa.Table:
        return pa.table({"id": list(values), "at": [value * 10 for value in values]})

    riders.load(rows(1, 2, 9))
    riders.load(rows(1, 2))
    assert watermark(riders.table, "at", storage_options={}) == 90


def test_a_column_that_orders_nothing_is_refused(riders: Any) -> None:
    write_deltalake(riders.uri, pa.table({"at": [True], "amount": pa.array([Decimal("1.5")])}))
    for name in ("at", "amount"):
        with pytest.raises(SchemaError, match="cannot be a cursor"):
            watermark(riders.table, name, storage_options={})
    with pytest.raises(SchemaError, match="no cursor column 'when'\n  columns: at, amount"):
        watermark(riders.table, "when", storage_options={})


def test_statistics_in_the_log_are_those_of_the_file(riders: Any) -> None:
    rows = pa.table({"id": [3, 1], "day": [dt.date(2026, 1, 2), None], "text": ["b" * 40, "a"], "x.y": [1, 2]})
    riders.load(rows)
    log = next((Path(riders.uri) / "_delta_log").glob("*.json")).read_text().splitlines()
    stats = next(json.loads(json.loads(line)["add"]["stats"]) for line in log if "add" in json.loads(line))
    assert stats["numRecords"] == 2
    assert (stats["minValues"]["id"], stats["maxValues"]["id"], stats["maxValues"]["x.y"]) == (1, 3, 2)
    assert (stats["maxValues"]["day"], stats["nullCount"]["day"]) == ("2026-01-02", 1)
    assert "text" not in stats["maxValues"]
    assert stats["maxValues"]["_modified_at"] == "2026-01-02T00:00:00.000000Z"
    assert pq.read_metadata(riders.data_files()[0]).num_rows == 2
