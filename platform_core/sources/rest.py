"""Streams the records of a REST service page by page, every page complete and each one once."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Cursor, Observation, ReadRequest, Secret, Source
from platform_core.sources.cursor_range import CursorRange
from platform_core.sources.json_values import Record, batches
from platform_core.sources.naming import check_columns
from platform_core.sources.rest_client import Client, Service
from platform_core.sources.rest_observation import observed
from platform_core.sources.rest_options import RestObjectOptions, RestOptions
from platform_core.sources.rest_paging import Page, Paging, named
from platform_core.sources.streaming import Batches, Stream, Streams, shaped
from platform_core.sources.types import parse_type
from platform_core.specs.step_kinds import Compare

_LOOK_AHEAD_ROWS = 1000
_LOOK_AHEAD_PAGES = 5


@dataclass(frozen=True)
class _Opened:
    """A read whose columns are known.

    Args:
        pages: all of them, those that were looked at first included.
        types: type by column, in order.
        complete: whether a key beside these columns is an error.
    """

    pages: Iterator[Page]
    types: dict[str, pa.DataType]
    complete: bool


class RestSource(Source):
    """Objects of one REST service that answers in JSON."""

    Options = RestOptions
    ObjectOptions = RestObjectOptions
    kind = "rest"
    compares = frozenset(Compare)

    def __init__(self, options: RestOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._service = Service(options, secret=secret)
        self._streams = Streams()

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns: declared ones with their types, and as text the further keys of the first pages."""
        with closing(self._service.client(where=_where(request))) as client:
            opened = self._open(client, request)
        return _selected(opened.types, request)

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the records; the first page is asked for at once."""
        where = _where(request)
        with ExitStack() as opening:
            client = opening.enter_context(closing(self._service.client(where=where)))
            opened = self._open(client, request)
            schema = _selected(opened.types, request)
            within = CursorRange.of(request, opened.types, where=where)
            needed = {name: opened.types[name] for name in dict.fromkeys([*schema.names, *within.columns])}
            rows = within.only(_rows(opened, needed, request.batch_rows, where))
            stream = Stream(
                shaped(rows, schema=schema, batch_rows=request.batch_rows),
                resources=opening.pop_all(),
                where=where,
                interrupt=client.abort,
            )
        return self._streams.reader(schema, stream)

    @classmethod
    def check_object(cls, object_: str) -> None:
        """Refuse what is no path below a base URL."""
        _url("", object_, f"rest '{object_}'")

    def observe(self, request: ReadRequest, *, by: Compare) -> Observation:
        """How the answer for a path stands; nothing of it is read as records."""
        where = _where(request)
        with closing(self._service.client(where=where)) as client:
            return observed(client, _url(self.options.base_url, request.object, where), by=by, where=where)

    def close(self) -> None:
        """Close the connections of unfinished reads."""
        self._streams.close()

    def _open(self, client: Client, request: ReadRequest) -> _Opened:
        options, where = _options(request), _where(request)
        declared = {name: parse_type(text) for name, text in options.columns.items()}
        pages = self._pages(client, request, options, since=request.since)
        first = list(itertools.islice(pages, 1))
        wanted = {*(request.columns or ()), *filter(None, [request.cursor])}
        all_declared = options.undeclared != "text" or (request.columns is not None and wanted <= declared.keys())
        if all_declared:
            types = declared
        else:
            first += _look_ahead(first, pages)
            types = declared | {name: pa.string() for name in _keys(first) if name not in declared}
            if not any(page.records for page in first) and request.since is not None:
                # Nothing new came, so a page of older records tells the columns.
                older = itertools.islice(self._pages(client, request, options, since=None), 1)
                types |= {name: pa.string() for name in _keys(list(older)) if name not in types}
        if not types:
            raise SourceError(
                f"{where}: the service gave no record, so no columns are known\n"
                "  declare them under the table's options: columns: {id: integer, …}"
            )
        check_columns([*(request.columns or ()), *filter(None, [request.cursor])], list(types), where=where)
        complete = options.undeclared == "refuse" or (not all_declared and request.columns is None)
        return _Opened(itertools.chain(first, pages), types, complete)

    def _pages(
        self, client: Client, request: ReadRequest, options: RestObjectOptions, *, since: Cursor | None
    ) -> Iterator[Page]:
        where = _where(request)
        paging = Paging(options, where=where)
        parameters = dict(options.params)
        if options.cursor_param is not None and since is not None:
            parameters[options.cursor_param] = options.cursor_template.replace("{since}", written(since, options))
        url: str | None = paging.first_url(_url(self.options.base_url, request.object, where), parameters)
        what = "the connection's 'base_url'"
        while url is not None:
            page = client.get(url, limit=options.largest_page_mb << 20, what=what, read=paging.page)
            yield page
            url, what = page.next_url, "the link to the next page"


def written(since: Cursor, options: RestObjectOptions) -> str:
    """A cursor value as the service takes it; never later than it is."""
    if not isinstance(since, dt.date):
        return str(since)
    if not isinstance(since, dt.datetime):
        since = dt.datetime(since.year, since.month, since.day, tzinfo=dt.UTC)
        if options.cursor_format in ("iso", "iso_seconds"):
            return since.date().isoformat()
    utc = since.replace(tzinfo=dt.UTC) if since.tzinfo is None else since.astimezone(dt.UTC)
    zone = "Z" if since.tzinfo else ""
    match options.cursor_format:
        case "iso":
            return f"{utc.replace(tzinfo=None).isoformat()}{zone}"
        case "iso_seconds":
            return f"{utc.replace(tzinfo=None).isoformat(timespec='seconds')}{zone}"
        case "date":
            return utc.date().isoformat()
        case "unix":
            return str((utc - _EPOCH) // dt.timedelta(seconds=1))
        case "unix_ms":
            return str((utc - _EPOCH) // dt.timedelta(milliseconds=1))
    return utc.strftime(options.cursor_format)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _where(request: ReadRequest) -> str:
    return f"rest '{request.object}'"


def _options(request: ReadRequest) -> RestObjectOptions:
    return request.options if isinstance(request.options, RestObjectOptions) else RestObjectOptions()


def _url(base: str, path: str, where: str) -> str:
    parts = path.strip("/").split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or any(sign in path for sign in "?#\\%")
        or not path.isprintable()
    ):
        raise SourceError(
            f"{where}: the object must be a path below the connection's base URL, such as crm/contacts\n"
            "  '..', '?', '#', '%' and backslashes are refused; parameters belong under the table's options: params"
        )
    return f"{base.rstrip('/')}/{'/'.join(parts)}"


def _selected(types: dict[str, pa.DataType], request: ReadRequest) -> pa.Schema:
    return pa.schema([(name, types[name]) for name in (types if request.columns is None else request.columns)])


def _look_ahead(first: list[Page], pages: Iterator[Page]) -> Iterator[Page]:
    rows = sum(len(page.records) for page in first)
    for _ in range(_LOOK_AHEAD_PAGES - 1):
        if rows >= _LOOK_AHEAD_ROWS or (page := next(pages, None)) is None:
            return
        rows += len(page.records)
        yield page


def _keys(pages: list[Page]) -> dict[str, None]:
    return {name: None for page in pages for record in page.records for name in record}


def _rows(opened: _Opened, types: dict[str, pa.DataType], batch_rows: int, where: str) -> Batches:
    for page in opened.pages:
        place = f"{where}: page {page.number}"
        if opened.complete:
            _refuse_new_keys(page, opened.types, place)
        size = page.size // max(len(page.records), 1)
        records = (Record(number, row, size) for number, row in enumerate(page.records, start=1))
        yield from batches(records, types, known=None, batch_rows=batch_rows, what="record", where=place)


def _refuse_new_keys(page: Page, types: dict[str, pa.DataType], place: str) -> None:
    for number, record in enumerate(page.records, start=1):
        if not record.keys() <= types.keys():
            keys = named(key for key in record if key not in types)
            raise SourceError(
                f"{place}, record {number:,}: has a key that is not among the columns: {keys}\n"
                "  name it under the table's options: columns, or set 'undeclared: ignore'"
            )
