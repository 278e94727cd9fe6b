"""Looking at what another system owns: a Delta table, files, or an answer over HTTP."""

from __future__ import annotations

import datetime as dt
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from platform_core.errors import SourceError, StepError
from platform_core.operations.external_asset import Seen, look, refuse_stale
from platform_core.operations.platform import Platform
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.processing import ProcessingSpec
from tests.services.http_server import HttpServer, Received, Reply, http_server

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
TOKEN = "t0ps3cret"


class Owner(ABC):
    """Another system with one thing in it."""

    type_: str
    object_: str

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Of the connection."""

    @abstractmethod
    def change(self) -> None:
        """Make another version of the thing."""

    @abstractmethod
    def remove(self) -> None:
        """Take the thing away."""

    def look(self, **fields: Any) -> Seen:
        connection = ConnectionSpec(workstream="mobility", name="theirs", type=self.type_, options=self.options)
        return look(external(object=self.object_, **fields), connection=connection, platform=self.platform)


class DeltaOwner(Owner):
    type_ = "delta"
    object_ = "gold/tariffs"

    def __init__(self, platform: Platform, folder: Path) -> None:
        super().__init__(platform)
        self.folder = folder
        self.change()

    @property
    def options(self) -> dict[str, Any]:
        return {"root": str(self.folder)}

    def change(self) -> None:
        write_deltalake(str(self.folder / self.object_), pa.table({"id": [1]}), mode="append")

    def remove(self) -> None:
        (self.folder / "gold").rename(self.folder / "elsewhere")


class FilesOwner(Owner):
    type_ = "files"
    object_ = "*.csv"

    def __init__(self, platform: Platform, folder: Path) -> None:
        super().__init__(platform)
        self.folder = folder
        self.writes = 0
        self.write("one.csv", "a\n1\n")
        self.write("two.csv", "a\n2\n")

    @property
    def options(self) -> dict[str, Any]:
        return {"root": str(self.folder), "settle": "0 seconds"}

    def write(self, name: str, text: str) -> None:
        self.writes += 1
        (self.folder / name).write_text(text)
        written = (NOON + dt.timedelta(minutes=self.writes)).timestamp()
        os.utime(self.folder / name, (written, written))

    def change(self) -> None:
        self.write("two.csv", "a\n3\n")

    def remove(self) -> None:
        for file in self.folder.glob("*.csv"):
            file.unlink()


class HttpOwner(Owner):
    type_ = "rest"
    object_ = "tariffs.json"

    def __init__(self, platform: Platform, server: HttpServer) -> None:
        super().__init__(platform)
        self.server = server
        self.status = 200
        self.tag: str | None = '"v1"'
        self.modified: str | None = "Fri, 01 May 2026 12:00:00 GMT"
        self.body = b"[1]"
        self.more: dict[str, Any] = {}
        self.asked: list[Received] = []
        server.on(f"/{self.object_}", self.answer)

    def answer(self, received: Received) -> Reply:
        self.asked.append(received)
        headers = {"ETag": self.tag, "Last-Modified": self.modified}
        return Reply(self.status, self.body, {name: value for name, value in headers.items() if value is not None})

    @property
    def options(self) -> dict[str, Any]:
        quick = {"retries": 0, "connect_timeout": "2 seconds", "read_timeout": "2 seconds"}
        return {"base_url": self.server.url, "allow_private": True, **quick, **self.more}

    def change(self) -> None:
        self.tag, self.body = '"v2"', b"[2]"

    def remove(self) -> None:
        self.status = 404


def external(**fields: Any) -> ProcessingSpec:
    declared = {"workstream": "mobility", "layer": "external", "name": "tariffs", "kind": "external"}
    return ProcessingSpec(**declared | {"source": "theirs"} | fields)


@pytest.fixture
def http(platform: Platform) -> Iterator[HttpOwner]:
    with http_server() as server:
        yield HttpOwner(platform, server)


@pytest.fixture
def files(platform: Platform, tmp_path: Path) -> FilesOwner:
    (tmp_path / "theirs").mkdir()
    return FilesOwner(platform, tmp_path / "theirs")


@pytest.fixture
def delta(platform: Platform, tmp_path: Path) -> DeltaOwner:
    (tmp_path / "other_lake").mkdir()
    return DeltaOwner(platform, tmp_path / "other_lake")


@pytest.fixture(params=["delta", "files", "http"])
def owner(request: pytest.FixtureRequest) -> Owner:
    found: Owner = request.getfixturevalue(request.param)
    return found


def test_the_version_stays_until_something_changes(owner: Owner) -> None:
    first = owner.look()
    assert owner.look().version == first.version
    owner.change()
    assert owner.look().version != first.version


def test_it_is_told_when_something_changed(owner: Owner) -> None:
    changed_at = owner.look().changed_at
    assert changed_at is not None
    assert changed_at.tzinfo is not None
    assert changed_at <= dt.datetime.now(dt.UTC)


def test_what_is_gone_is_an_error_that_names_it(owner: Owner) -> None:
    owner.remove()
    with pytest.raises(SourceError, match=r"external mobility\.external\.tariffs: ") as caught:
        owner.look()
    assert owner.object_ in str(caught.value)


@pytest.mark.parametrize("owner", ["files", "http"], indirect=True)
def test_by_content_the_same_bytes_are_the_same_version_whatever_is_said_of_them(owner: Owner) -> None:
    first = owner.look(compare="content")
    if isinstance(owner, FilesOwner):
        owner.write("two.csv", "a\n2\n")
    elif isinstance(owner, HttpOwner):
        owner.tag, owner.modified = '"v7"', "Sat, 02 May 2026 12:00:00 GMT"
    again = owner.look(compare="content")
    assert (again.version, again.changed_at != first.changed_at) == (first.version, True)
    owner.change()
    assert owner.look(compare="content").version != first.version


def test_tidying_a_delta_table_up_makes_no_new_version(delta: DeltaOwner) -> None:
    for _ in range(3):
        delta.change()
    before = delta.look()
    table = DeltaTable(str(delta.folder / delta.object_))
    table.optimize.compact()
    assert table.version() > before.figures["version"]
    assert delta.look().version == before.version


def test_another_table_in_the_same_place_is_another_version(delta: DeltaOwner) -> None:
    before = delta.look()
    delta.remove()
    delta.change()
    assert delta.look().figures == before.figures
    assert delta.look().version != before.version


def test_a_file_more_or_less_is_another_version(files: FilesOwner) -> None:
    before = files.look()
    files.write("three.csv", "a\n3\n")
    more = files.look()
    (files.folder / "one.csv").unlink()
    less = files.look()
    assert len({before.version, more.version, less.version}) == 3
    assert (more.figures["files"], less.figures["files"]) == (3, 2)


def test_the_newest_file_tells_when_files_changed(files: FilesOwner) -> None:
    assert files.look().changed_at == NOON + dt.timedelta(minutes=2)


def test_without_an_etag_last_modified_is_the_version(http: HttpOwner) -> None:
    http.tag = None
    first = http.look()
    assert (first.version, first.changed_at) == ("2026-05-01T12:00:00+00:00", NOON)
    http.modified = "Fri, 01 May 2026 12:00:01 GMT"
    assert http.look().version != first.version


def test_an_answer_that_tells_no_version_is_refused_with_the_way_out(http: HttpOwner) -> None:
    http.tag = http.modified = None
    with pytest.raises(SourceError, match="neither ETag nor Last-Modified\n  declare 'compare: content'"):
        http.look()
    assert http.look(compare="content").changed_at is None


@pytest.mark.parametrize("status", [206, 401, 403, 404, 410, 500, 503])
def test_no_other_status_counts_as_there(http: HttpOwner, status: int) -> None:
    http.status = status
    with pytest.raises(SourceError, match=f"status {status}"):
        http.look()


def test_the_body_is_not_read_where_headers_tell(http: HttpOwner) -> None:
    http.body = b"x" * (64 << 20)
    assert "bytes" not in http.look().figures


def test_a_secret_is_sent_and_never_told(http: HttpOwner) -> None:
    http.more = {"auth": {"type": "bearer", "token": {"secret": "mobility/token"}}}
    http.look()
    assert http.asked[-1].headers["Authorization"] == f"Bearer {TOKEN}"
    http.status = 500
    with pytest.raises(SourceError) as caught:
        http.look()
    assert TOKEN not in str(caught.value)


def test_a_table_that_another_system_writes_into_the_lake_needs_no_connection(platform: Platform, put: Any) -> None:
    put("external.tariffs", pa.table({"id": [1]}))
    first = look(external(source=None), connection=None, platform=platform)
    put("external.tariffs", pa.table({"id": [2]}))
    assert look(external(source=None), connection=None, platform=platform).version != first.version


def seen(changed_at: dt.datetime | None) -> Seen:
    return Seen(asset=external(object="x").ref, version="1", changed_at=changed_at)


@pytest.mark.parametrize(
    ("changed_at", "first_seen"),
    [(NOON - dt.timedelta(hours=25), NOON), (None, NOON - dt.timedelta(hours=25))],
    ids=["its system says so", "nobody has seen another one since"],
)
def test_what_is_older_than_allowed_is_refused(changed_at: dt.datetime | None, first_seen: dt.datetime) -> None:
    spec = external(object="x", fresh="1 day")
    with pytest.raises(StepError, match=r"too old: it .* at 2026-04-30 11:00 UTC, 25 hours ago, .* allows 24 hours"):
        refuse_stale(spec, seen(changed_at), first_seen=first_seen, now=NOON)


@pytest.mark.parametrize("changed_at", [NOON, NOON - dt.timedelta(days=1), NOON + dt.timedelta(minutes=5)])
def test_what_is_as_fresh_as_it_must_be_passes(changed_at: dt.datetime) -> None:
    refuse_stale(external(object="x", fresh="1 day"), seen(changed_at), first_seen=None, now=NOON)
