"""Log files of JSON lines: what each line is about, how large a file gets, and what never stands in it."""

import datetime as dt
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from platform_core.errors import SourceError
from platform_core.factories import step_lines as hook
from platform_core.factories.step_lines import with_step_lines
from platform_core.operations.log_files import FOLDER, LogFile, StepLines, log_file
from platform_core.specs.environment import LogsSpec

SPEC = LogsSpec()
CANARY = "canary-1f0a6b"


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl*")) for line in file.read_text().splitlines()]


def logger_of(handler: logging.Handler) -> logging.Logger:
    found = logging.Logger("step", logging.DEBUG)
    found.addHandler(handler)
    return found


def record(text: str, *args: object, module: str = "extract", **more: Any) -> logging.LogRecord:
    """A record as a module of the platform makes it."""
    import platform_core

    folder = Path(str(platform_core.__file__)).parent / "operations" / f"{module}.py"
    found = logging.LogRecord("step", logging.INFO, str(folder), 7, text, args, more.pop("exc_info", None))
    for name, value in more.items():
        setattr(found, name, value)
    return found


def test_a_line_says_run_step_table_batch_and_phase(tmp_path: Path) -> None:
    step = StepLines(LogFile(tmp_path, SPEC), {"run": "r1", "step": "s1", "table": "crm.bronze.orders"}, level="info")
    step.handle(record("loading batch %d", 5, module="ingest", batch=5))
    step.handle(record("%d rows read", 10))
    first, second = lines(tmp_path)
    assert {name: second[name] for name in ("run", "step", "table", "batch", "phase", "level", "message")} == {
        "run": "r1",
        "step": "s1",
        "table": "crm.bronze.orders",
        "batch": 5,
        "phase": "extract",
        "level": "info",
        "message": "10 rows read",
    }
    assert first["phase"] == "load"
    assert dt.datetime.fromisoformat(first["time"]).tzinfo is not None


def test_no_row_value_of_an_error_or_of_a_teams_code_is_written(tmp_path: Path) -> None:
    step = StepLines(LogFile(tmp_path, SPEC), {}, level="debug")
    try:
        raise ValueError(CANARY)
    except ValueError:
        step.handle(record("it failed", exc_info=sys.exc_info()))
    logger_of(step).warning("row %s", CANARY)
    mine, theirs = lines(tmp_path)
    assert mine["error"].startswith("ValueError")
    assert "Dagster's log of the run" in theirs["message"]
    assert CANARY not in json.dumps([mine, theirs])


def test_a_line_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    step = StepLines(LogFile(tmp_path, SPEC), {}, level="info")
    step.handle(record('a\nb\r\n"\u2028\x00 \ud800 ' + "x" * 100_000))
    (file,) = tmp_path.glob("*.jsonl")
    assert file.read_bytes().count(b"\n") == 1
    assert len(json.loads(file.read_bytes().decode(errors="replace"))["message"]) == 8_000


def test_a_process_leaves_no_more_than_its_files(tmp_path: Path) -> None:
    spec = LogsSpec(max_size=2_000, files=3)
    file = LogFile(tmp_path, spec)
    for number in range(500):
        file.write({"number": number, "text": "x" * 50})
    left = sorted(tmp_path.iterdir())
    assert len(left) == 3
    assert all(each.stat().st_size <= 2_000 for each in left)
    assert max(line["number"] for line in lines(tmp_path)) == 499


def test_several_threads_write_whole_lines(tmp_path: Path) -> None:
    file = LogFile(tmp_path, LogsSpec(max_size=10_000, files=50))

    def write(name: int) -> None:
        for number in range(200):
            file.write({"name": name, "n": number})

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {(line["name"], line["n"]) for line in lines(tmp_path)}
    assert found == {(name, n) for name in range(4) for n in range(200)}


def test_a_disk_that_takes_nothing_costs_lines_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LogFile(tmp_path, SPEC)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(3):
            file.write({"message": "lost"})
    file.write({"message": "kept"})
    assert lines(tmp_path) == [{"message": "kept", "lines_lost": 3}]


def test_files_of_ended_processes_go_after_their_time(tmp_path: Path) -> None:
    old, young = tmp_path / "old.jsonl", tmp_path / "young.jsonl"
    for file, days in ((old, 20), (young, 2)):
        file.write_text("{}\n")
        then = (dt.datetime.now() - dt.timedelta(days=days)).timestamp()
        os.utime(file, (then, then))
    LogFile(tmp_path, SPEC)
    assert [file.name for file in tmp_path.iterdir()] == ["young.jsonl"]


def test_a_process_has_one_file(tmp_path: Path) -> None:
    assert log_file(tmp_path, SPEC) is log_file(tmp_path, SPEC)
    assert log_file(tmp_path, SPEC).path.parent == tmp_path / FOLDER


def test_a_step_writes_its_begin_its_lines_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = StepLines(LogFile(tmp_path, SPEC), {"step": "orders"}, level="info")
    monkeypatch.setattr(hook, "_lines", lambda _: step)
    fails = [False]

    @dg.asset
    def orders(context: dg.AssetExecutionContext) -> None:
        def body(context: dg.AssetExecutionContext) -> Iterator[int]:
            yield 1
            if fails[0]:
                raise SourceError("source erp does not answer")

        assert list(with_step_lines(body)(context)) == [1]

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([orders], instance=instance)
        fails[0] = True
        dg.materialize([orders], instance=instance, raise_on_error=False)
    assert [line["message"] for line in lines(tmp_path)] == ["step begins", "step ends", "step begins", "step failed"]
    failed = lines(tmp_path)[-1]
    assert (failed["error_class"], failed["error"]) == ("SourceError", "source erp does not answer")


def test_d5_a_log_that_cannot_be_written_fails_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    environment = SimpleNamespace(name="test", logs=LogsSpec())
    monkeypatch.setattr(hook, "opened_platform", lambda: SimpleNamespace(environment=environment, state=tmp_path))

    @dg.asset
    def orders(context: dg.AssetExecutionContext) -> None:
        def body(context: dg.AssetExecutionContext) -> Iterator[int]:
            yield 1

        assert list(with_step_lines(body)(context)) == [1]

    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([orders], instance=instance).success


def test_a_step_of_the_platform_says_what_it_is_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SimpleNamespace(name="test", logs=LogsSpec())
    monkeypatch.setattr(hook, "opened_platform", lambda: SimpleNamespace(environment=environment, state=tmp_path))

    @dg.asset(key=["crm", "bronze", "orders"])
    def orders(context: dg.AssetExecutionContext) -> None:
        def body(context: dg.AssetExecutionContext) -> Iterator[int]:
            yield 1

        list(with_step_lines(body)(context))

    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize([orders], instance=instance, tags={"edp/serial": "12"})
    first, last = lines(tmp_path / FOLDER)
    about = {"environment": "test", "run": run.run_id, "step": "crm__bronze__orders", "table": "crm.bronze.orders"}
    assert {name: first[name] for name in (*about, "serial")} == about | {"serial": "12"}
    assert (first["message"], last["message"]) == ("step begins", "step ends")
    assert last["seconds"] >= 0
