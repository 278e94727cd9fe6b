"""The source dlt, on real dlt sources that run as they would in production."""

from __future__ import annotations

import datetime as dt
import json
import os
import pwd
import sqlite3
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.plugins.testing import CANARY, Place, Placed, SourceSuite, no_secrets
from platform_core.sources.dlt import DltSource
from platform_core.sources.types import type_name
from platform_core.specs.base import SecretRef
from platform_core.specs.ingestion import LoadMode
from tests.services.http_server import http_server, json_reply

MODULE = "tests.sources.dlt_resources"
OF_OTHER_TESTS = ("pytest-of-", "postgres-", "mariadb-", "azurite-")
UTC = dt.UTC


def source(
    function: str, *, arguments: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> DltSource:
    options = DltSource.Options(source=f"{MODULE}:{function}", arguments=arguments or {}, config=config or {})
    return DltSource(options, secret=lambda name: Secret(name, f"value of {name}".encode()))


def table_of(
    function: str, resource: str | None = None, *, options: dict[str, Any] | None = None, **given: Any
) -> pa.Table:
    fields = {name: given.pop(name) for name in ("arguments", "config") if name in given}
    request = ReadRequest(object=resource or function, options=DltSource.ObjectOptions(**(options or {})), **given)
    with closing(source(function, **fields)) as opened:
        return opened.read(request).read_all()


def rows_of(function: str, resource: str | None = None, **given: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table_of(function, resource, **given).to_pylist()
    return rows


def failure_of(function: str, resource: str | None = None, **given: Any) -> str:
    with pytest.raises(SourceError) as caught:
        table_of(function, resource, **given)
    return str(caught.value)


def store(folder: Path, rows: pa.Table) -> None:
    """Put rows where the resources of the suite find them."""
    folder.mkdir(exist_ok=True)
    with pa.ipc.new_file(folder / f"{len([*folder.iterdir()]):03}.arrow", rows.schema) as writer:
        writer.write_table(rows)


class TestDlt(SourceSuite):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "rows"

    @pytest.fixture
    def place(self, folder: Path) -> Place:
        def put(rows: pa.Table) -> Placed:
            store(folder, rows)
            options = DltSource.Options(source=f"{MODULE}:suite", arguments={"folder": str(folder)})
            types = {field.name: type_name(field.type) for field in rows.schema}
            request = ReadRequest(object="rows", options=DltSource.ObjectOptions(columns=types))
            return DltSource(options, secret=no_secrets), request

        return put

    @pytest.fixture
    def place_more(self, folder: Path) -> Callable[[pa.Table], None]:
        return lambda rows: store(folder, rows)

    @pytest.fixture
    def place_broken(self, folder: Path) -> Callable[[str], Placed]:
        def put(text: str) -> Placed:
            store(folder, pa.table({"name": [text]}))
            options = DltSource.Options(source=f"{MODULE}:suite", arguments={"folder": str(folder)})
            return DltSource(options, secret=no_secrets), ReadRequest(object="broken")

        return put


class TestFinding:
    def test_a_resource_of_a_source_is_read(self) -> None:
        assert rows_of("family", "parents") == [{"id": 1}, {"id": 2}]

    def test_a_transformer_is_fed_by_its_parent(self) -> None:
        assert rows_of("family", "children") == [{"parent": 1, "child": 10}, {"parent": 2, "child": 20}]

    def test_parallel_steps_work(self) -> None:
        assert sorted(row["id"] for row in rows_of("family", "deferred")) == [1, 2]

    def test_a_function_that_knows_nothing_of_dlt_is_read(self) -> None:
        rows = rows_of("plain", arguments={"count": 2, "name": "y"})
        assert rows == [{"id": 0, "name": "y0"}, {"id": 1, "name": "y1"}]

    def test_a_list_of_rows_is_read(self) -> None:
        assert rows_of("ROWS", "anything") == [{"id": 1}, {"id": 2}]

    def test_an_unknown_resource_is_named_beside_the_known_ones(self) -> None:
        told = failure_of("family", "parent")
        assert "no resource 'parent'" in told
        assert "did you mean 'parents'" in told

    def test_what_is_no_source_is_named(self) -> None:
        assert "has no 'missing'" in failure_of("missing")
        assert "gives neither" in failure_of("UTC", "x")

    def test_a_missing_module_is_named(self) -> None:
        options = DltSource.Options(source="no.such.module:x")
        with closing(DltSource(options, secret=no_secrets)) as opened, pytest.raises(SourceError, match="'no'"):
            opened.schema(ReadRequest(object="x"))

    @pytest.mark.parametrize("text", ["module", "module:", ":x", "a b:c", "../x:y", "x:y()", "x:import os"])
    def test_a_source_is_written_module_and_function(self, text: str) -> None:
        with pytest.raises(ValidationError, match="module:function"):
            DltSource.Options(source=text)

    def test_rows_of_several_tables_are_not_mixed(self) -> None:
        assert "several tables" in failure_of("events")
        assert "several tables" in failure_of("marked")

    def test_rows_of_one_table_are_read_by_its_name(self) -> None:
        assert rows_of("events", options={"table_name": "push"}) == [{"kind": "push", "n": 1}, {"kind": "push", "n": 3}]
        assert rows_of("marked", options={"table_name": "other"}) == [{"id": 2}]


class TestConnectors:
    """Connectors that come with dlt, as they are."""

    def test_dlts_own_rest_connector_serves(self) -> None:
        with http_server() as server:
            server.on("/issues", json_reply([{"id": 1}, {"id": 2}]))
            options = DltSource.Options(
                source="dlt.sources.rest_api:rest_api_source",
                arguments={"config": {"client": {"base_url": server.url}, "resources": ["issues"]}},
            )
            with closing(DltSource(options, secret=no_secrets)) as opened:
                assert opened.read(ReadRequest(object="issues")).read_all().to_pylist() == [{"id": 1}, {"id": 2}]

    def test_dlts_own_database_connector_serves_with_the_databases_types(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "a.db")) as database:
            database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount NUMERIC(10, 2))")
            database.execute("INSERT INTO orders VALUES (1, 1.5)")
            database.commit()
        options = DltSource.Options(
            source="dlt.sources.sql_database:sql_database", arguments={"credentials": {"secret": "crm/url"}}
        )
        url = f"sqlite:///{tmp_path}/a.db"
        with closing(DltSource(options, secret=lambda name: Secret(name, url.encode()))) as opened:
            read = opened.read(ReadRequest(object="orders")).read_all()
        assert read.schema.types == [pa.int64(), pa.decimal128(10, 2)]
        assert read.to_pylist() == [{"id": 1, "amount": Decimal("1.50")}]


class TestTypes:
    def test_types_are_those_of_the_first_rows(self) -> None:
        table = table_of("many_types")
        assert {field.name: type_name(field.type) for field in table.schema} == {
            "whole": "integer",
            "ratio": "float",
            "amount": "decimal(38,10)",
            "yes": "boolean",
            "text": "text",
            "seen": "timestamptz",
            "at": "timestamp",
            "day": "date",
            "clock": "text",
            "data": "binary",
            "nested": "text",
            "items": "text",
            "empty": "text",
        }
        first, second = table.to_pylist()
        assert (first["whole"], first["amount"], first["data"]) == (2**63 - 1, Decimal("0.10"), b"\x00\xff")
        assert first["seen"] == dt.datetime(2024, 1, 1, tzinfo=UTC)
        assert first["nested"] == '{"a":[1,null,{"b":"1.10","c":"2024-01-01"}]}'
        assert (first["items"], first["clock"]) == ('["é",1.5]', "01:02:03")
        assert second == {**dict.fromkeys(first), "ratio": 1.0}

    def test_hints_of_the_resource_go_before_values(self) -> None:
        table = table_of("hinted")
        assert {field.name: type_name(field.type) for field in table.schema} == {
            "id": "integer",
            "amount": "decimal(18,2)",
            "rate": "decimal(38,9)",
            "at": "timestamp",
            "seen": "timestamptz",
            "extra": "text",
            "day": "date",
            "flag": "boolean",
            "data": "binary",
            "clock": "text",
            "ratio": "float",
            "untyped": "integer",
        }
        first, second = table.to_pylist()
        assert (first["amount"], first["extra"], first["untyped"]) == (Decimal("1.50"), '{"a":1}', 7)
        assert first["seen"] == second["seen"] == dt.datetime(2024, 1, 1, tzinfo=UTC)
        assert second["day"] == dt.date(2024, 2, 29)

    def test_declared_columns_go_before_hints(self) -> None:
        table = table_of("hinted", options={"columns": {"id": "text"}})
        assert table.column("id").to_pylist() == ["1", "2"]

    def test_arrow_tables_keep_their_types_beside_dictionaries(self) -> None:
        table = table_of("tables")
        assert table.schema.types == [pa.int32(), pa.timestamp("ms")]
        assert table.column("id").to_pylist() == [1, 2, 1, 2, 3]

    def test_a_value_that_does_not_fit_stops_the_read_without_being_told(self) -> None:
        told = failure_of("changing", arguments={"text": CANARY}, options={"sample_rows": 5})
        assert "column 'n' that does not fit its type integer" in told
        assert CANARY not in told

    def test_a_column_that_first_comes_later_is_an_error(self) -> None:
        assert "a column 'later'" in failure_of("growing", options={"sample_rows": 5})

    def test_a_column_within_the_sample_is_not(self) -> None:
        assert table_of("growing").schema.names == ["id", "later"]

    def test_undeclared_columns_can_be_ignored_or_refused(self) -> None:
        declared = {"columns": {"id": "integer"}, "sample_rows": 5}
        assert len(rows_of("growing", options={**declared, "undeclared": "ignore"})) == 11
        assert "'later'" in failure_of("growing", options={**declared, "undeclared": "refuse"})

    def test_a_resource_without_rows_has_its_declared_columns(self) -> None:
        assert table_of("nothing", options={"columns": {"id": "integer"}}).schema.names == ["id"]
        assert "declare them" in failure_of("nothing")

    def test_what_is_no_row_is_an_error(self) -> None:
        assert "gives a int, which is no row" in failure_of("odd")


class TestIncremental:
    def test_since_begins_the_resources_own_cursor(self) -> None:
        rows = rows_of("asked_from_number", arguments={"step": 1}, cursor="id", since=7)
        assert rows == [{"id": number, "asked": 7} for number in (7, 8, 9)]

    def test_since_as_a_time_begins_a_cursor_of_times(self) -> None:
        rows = rows_of("asked_from_time", cursor="seen", since=dt.datetime(2024, 1, 2, tzinfo=UTC))
        assert [(row["seen"].day, row["asked"]) for row in rows] == [(2, "2024-01-02"), (3, "2024-01-02")]

    def test_since_as_a_time_begins_a_cursor_of_texts_early_enough(self) -> None:
        rows = rows_of(
            "asked_from",
            options={"columns": {"updated": "timestamptz"}},
            cursor="updated",
            since=dt.datetime(2024, 1, 2, tzinfo=UTC),
        )
        assert [row["updated"].isoformat() for row in rows] == [
            "2024-01-02T00:00:00.500000+00:00",
            "2024-01-02T00:00:00+00:00",
            "2024-01-03T00:00:00+00:00",
        ]
        assert {row["asked"] for row in rows} == {"2023-12-31T00:00:00Z"}

    def test_without_since_the_resource_begins_where_it_says(self) -> None:
        assert {row["asked"] for row in rows_of("asked_from")} == {"2000-01-01T00:00:00Z"}

    def test_until_is_inclusive(self) -> None:
        rows = rows_of("asked_from_number", arguments={"step": 1}, cursor="id", since=1, until=3)
        assert [row["id"] for row in rows] == [1, 2, 3]


def load(function: str, state: bytes | None, *, mode: LoadMode = LoadMode.INCREMENTAL, **given: Any) -> Any:
    fields = {name: given.pop(name) for name in ("arguments",) if name in given}
    with closing(source(function, **fields)) as opened:
        request = ReadRequest(object=function, state=state, mode=mode, **given)
        return opened.read(request).read_all().to_pylist(), opened.state()


class TestState:
    def test_a_resources_own_state_is_kept_and_given_back(self) -> None:
        rows, state = load("counting", None, arguments={"most": 3})
        assert [row["id"] for row in rows] == [0, 1, 2]
        rows, state = load("counting", state, arguments={"most": 5})
        assert [row["id"] for row in rows] == [3, 4]
        assert '"next":5' in (state or b"").decode()

    def test_mode_full_reads_everything_whatever_is_known(self) -> None:
        _, state = load("counting", None, arguments={"most": 3})
        rows, _ = load("counting", state, arguments={"most": 3}, mode=LoadMode.FULL)
        assert len(rows) == 3

    def test_an_append_of_a_resource_that_keeps_nothing_is_made_once(self) -> None:
        _, state = load("parents", None, mode=LoadMode.APPEND)
        with pytest.raises(SourceError, match="every row would be there twice"):
            load("parents", state, mode=LoadMode.APPEND)

    def test_state_is_known_only_when_all_is_read(self, tmp_path: Path) -> None:
        with closing(source("counting", arguments={"most": 20_000})) as opened:
            reader = opened.read(ReadRequest(object="counting", batch_rows=10))
            next(iter(reader))
            assert opened.state() is None
            reader.read_all()
            assert opened.state() is not None


class TestFailures:
    def test_an_error_of_a_source_is_told_by_class_and_line(self) -> None:
        told = failure_of("failing", arguments={"text": CANARY})
        assert "RuntimeError at dlt_resources.py:" in told
        assert "in failing" in told
        assert CANARY not in told

    @pytest.mark.parametrize("function", ["leaving", "vanishing"])
    def test_a_source_that_ends_its_process_does_not_pass_off_a_part_as_all(self, function: str) -> None:
        assert failure_of(function)

    def test_a_killed_process_is_an_error(self, tmp_path: Path) -> None:
        with closing(source("endless", arguments={"folder": str(tmp_path)})) as opened:
            reader = opened.read(ReadRequest(object="endless", batch_rows=100))
            (pid,) = (int(path.name) for path in tmp_path.iterdir() if path.name.isdigit())
            os.kill(pid, 9)
            with pytest.raises(SourceError, match="ended before all rows were read"):
                reader.read_all()

    def test_closing_ends_the_process_while_another_thread_waits(self, tmp_path: Path) -> None:
        opened = source("endless", arguments={"folder": str(tmp_path)})
        reader = opened.read(ReadRequest(object="endless", batch_rows=100))
        errors: list[BaseException] = []

        def drain() -> None:
            try:
                reader.read_all()
            except SourceError as error:
                errors.append(error)

        thread = threading.Thread(target=drain)
        thread.start()
        # So that it waits, as a rule; where it comes too late, it finds the source closed, which is as well.
        time.sleep(0.5)
        opened.close()
        thread.join(120)
        (pid,) = (path.name for path in tmp_path.iterdir() if path.name.isdigit())
        assert (len(errors), is_gone(pid)) == (1, True)

    def test_a_process_ends_with_its_reader(self, tmp_path: Path) -> None:
        with closing(source("endless", arguments={"folder": str(tmp_path)})) as opened:
            opened.schema(ReadRequest(object="endless"))
        (pid,) = (path.name for path in tmp_path.iterdir() if path.name.isdigit())
        assert is_gone(pid)

    def test_a_later_read_works_after_the_first_process_of_all_was_killed(self) -> None:
        rows_of("parents")
        from platform_core.sources import dlt_process

        assert dlt_process._nursery._process is not None
        dlt_process._nursery._process.kill()
        assert rows_of("parents") == [{"id": 1}, {"id": 2}]


def is_gone(pid: str) -> bool:
    """Whether a process ends, within a minute where much else is done."""
    for _ in range(600):
        if not Path("/proc", pid).exists():
            return True
        time.sleep(0.1)
    return False


class TestSecrets:
    CONFIG = {"sources": {"crm": {"token": {"secret": "crm/token"}, "limit": 5}}}  # noqa: RUF012

    def test_secrets_come_from_the_secret_store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDP_TEST_SECRET", CANARY)
        monkeypatch.setenv("SOURCES__CRM__TOKEN", CANARY)
        rows = rows_of("configured", "contacts", config=self.CONFIG)
        assert rows == [{"token": "value of crm/token", "limit": 5, "home": None, "leak": None}]

    def test_arguments_may_hold_secrets_at_any_depth(self) -> None:
        options = DltSource.Options(source="a:b", arguments={"x": [{"y": {"secret": "crm/token"}}], "z": 1})
        assert options.arguments == {"x": [{"y": SecretRef(secret="crm/token")}], "z": 1}
        rows = rows_of("plain", arguments={"count": 1, "name": {"secret": "crm/name"}})
        assert rows == [{"id": 0, "name": "value of crm/name0"}]

    def test_dlts_own_files_and_variables_are_not_looked_at(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for folder in (tmp_path, tmp_path / "home"):
            (folder / ".dlt").mkdir(parents=True)
            (folder / ".dlt" / "secrets.toml").write_text('[sources.crm]\ntoken = "from a file"\nlimit = 1\n')
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("SOURCES__CRM__LIMIT", "1")
        told = failure_of("configured", "contacts")
        assert "token" in told
        assert "'arguments' or 'config'" in told

    def test_secrets_are_in_no_message_and_no_argument(self) -> None:
        opened = source("failing", arguments={"text": {"secret": CANARY}})
        with closing(opened), pytest.raises(SourceError) as caught:
            reader = opened.read(ReadRequest(object="failing"))
            commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
            assert not [command for command in commands if f"value of {CANARY}".encode() in command]
            reader.read_all()
        assert CANARY not in str(caught.value) + repr(vars(opened).get("_state"))


class TestDisk:
    """No row reaches a disk before it is masked."""

    def test_nothing_is_written_while_rows_are_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        places = {name: tmp_path / name for name in ("cwd", "home", "tmp", "data")}
        for folder in places.values():
            folder.mkdir()
        monkeypatch.chdir(places["cwd"])
        monkeypatch.setenv("HOME", str(places["home"]))
        monkeypatch.setenv("TMPDIR", str(places["tmp"]))
        monkeypatch.setenv("DLT_DATA_DIR", str(places["data"]))
        # Of its own: other tests that run meanwhile have the common one in their files.
        canary = f"{CANARY}-{uuid.uuid4().hex}"
        store(tmp_path / "rows", pa.table({"id": [1], "name": [canary]}))
        begun = time.time()
        rows = rows_of("suite", "rows", arguments={"folder": str(tmp_path / "rows")})
        assert rows == [{"id": 1, "name": canary}]
        assert [path for folder in places.values() for path in folder.rglob("*")] == []
        assert tainted(canary, since=begun, besides=tmp_path) == []

    def test_what_a_source_prints_goes_nowhere(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert rows_of("talking", arguments={"text": CANARY}) == [{"id": 1}]
        printed = capfd.readouterr()
        assert CANARY not in printed.out + printed.err

    @pytest.mark.parametrize("way", ["file", "temp", "child", "pipeline"])
    def test_a_source_cannot_write_a_file(self, tmp_path: Path, way: str) -> None:
        told = failure_of("writing", arguments={"folder": str(tmp_path), "text": CANARY, "way": way})
        if way != "pipeline":
            assert "may reach a disk only after they are masked" in told
        assert CANARY not in told
        assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size] == []

    def test_dlt_is_told_to_send_no_telemetry(self) -> None:
        from platform_core.sources.dlt_resource import QuietContext

        assert QuietContext({}).runtime_config.dlthub_telemetry is False

    def test_state_is_json_that_people_can_read(self) -> None:
        _, state = load("counting", None, arguments={"most": 1})
        assert json.loads(state or b"") == {"dlt_resources": {"resources": {"counting": {"next": 1}}}}


def _home() -> Path:
    """Of the account, whatever HOME says."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def _files_below(folder: Path) -> Iterator[Path]:
    """Other programs' files and folders come and go while they are looked at: `walk` leaves out what is gone."""
    for place, folders, names in os.walk(folder):
        # What the tests beside this one and their servers have there: nobody else writes into it.
        folders[:] = [name for name in folders if not name.startswith(OF_OTHER_TESTS)]
        yield from (Path(place, name) for name in names)


def tainted(canary: str, *, since: float, besides: Path) -> list[Path]:
    """Files that were written since a moment and hold the canary, where programs leave things."""
    found = []
    for folder in (Path("/tmp"), Path("/var/dlt"), Path("/var/tmp"), _home() / ".dlt", Path("/dev/shm")):
        for path in _files_below(folder):
            if path.is_relative_to(besides):
                continue
            try:
                status = path.lstat()
                recent = stat.S_ISREG(status.st_mode) and status.st_mtime >= since and status.st_size < 64 << 20
                if recent and canary.encode() in path.read_bytes():
                    found.append(path)
            except OSError:
                continue
    return found
