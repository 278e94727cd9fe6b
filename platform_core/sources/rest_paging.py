"""How one page of a REST service leads to the next, and how it is known that none is missing or doubled."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from platform_core.errors import SourceError
from platform_core.sources.json_values import DECODER, FaultError, Number
from platform_core.sources.rest_client import Answer, TransientFaultError
from platform_core.sources.rest_guard import shown
from platform_core.sources.rest_options import (
    CursorPaging,
    LinkPaging,
    NextUrlPaging,
    OffsetPaging,
    PagePaging,
    RestObjectOptions,
)

_MISSING = object()
_NAME = re.compile(r"[A-Za-z_$@][\w.-]{0,62}", re.ASCII)
_LISTED = 20


@dataclass(frozen=True)
class Page:
    """One answer, taken apart.

    Args:
        url: whom it came from.
        number: counted from 1.
        records: its rows.
        size: bytes of the answer, unpacked.
        next_url: where the next page is; None: this was the last.
    """

    url: str
    number: int
    records: list[dict[str, Any]]
    size: int
    next_url: str | None


class Paging:
    """The pages of one read, in order; every one is looked at once."""

    def __init__(self, options: RestObjectOptions, *, where: str) -> None:
        """Begin before the first page.

        Args:
            options: the object's.
            where: source and object, for messages.
        """
        self._options = options
        self._where = where
        self._asked: set[bytes] = set()
        self._seen: set[bytes] = set()
        self._pages = 0
        self._records = 0
        self._total: int | None = None

    def first_url(self, url: str, parameters: Mapping[str, str | int | bool]) -> str:
        """The URL of the first page."""
        style = self._options.paging
        given: dict[str, str | int | bool] = dict(parameters)
        if isinstance(style, OffsetPaging):
            given[style.param] = 0
        if isinstance(style, PagePaging):
            given[style.param] = style.first
        if isinstance(style, (OffsetPaging, PagePaging)) and style.size_param is not None:
            given[style.size_param] = style.size
        return _with(url, given)

    def page(self, answer: Answer) -> Page:
        """Take an answer apart and count it.

        Raises:
            TransientFaultError: it is not JSON.
            SourceError: it is not what was declared, repeats another page, or does not fit the announced total.
        """
        document = self._document(answer)
        records = self._found_records(answer, document)
        total = self._found_total(document)
        self._pages += 1
        self._records += len(records)
        self._refuse_repetition(records)
        self._refuse_changed_total(total)
        next_url = self._next_url(answer, document, records)
        if next_url is None:
            self._refuse_other_total()
        else:
            self._refuse_loop(next_url)
        return Page(answer.url, self._pages, records, len(answer.body), next_url)

    def _document(self, answer: Answer) -> Any:
        if answer.status == 204:
            return _MISSING
        try:
            return DECODER.decode(answer.body.decode("utf-8-sig").strip())
        except (ValueError, RecursionError) as error:
            why = f": {error}" if isinstance(error, FaultError) else ""
            raise TransientFaultError(f"the answer is not JSON{why}") from None

    def _found_records(self, answer: Answer, document: Any) -> list[dict[str, Any]]:
        pointer = self._options.records_at
        found = [] if document is _MISSING else at(document, pointer)
        if (found is _MISSING or found is None) and self._options.missing_is_empty:
            found = []
        if found is _MISSING or found is None:
            raise SourceError(
                f"{self._where}: the answer of {shown(answer.url)} has no records at '{pointer}'\n"
                f"{_keys(document)}\n"
                "  correct 'records_at'; if an empty page leaves them out, set 'missing_is_empty: true'"
            )
        if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
            raise SourceError(
                f"{self._where}: what stands at '{pointer}' of the answer of {shown(answer.url)} "
                f"is not a list of objects\n{_keys(found)}\n  set 'records_at' to the list"
            )
        return found

    def _found_total(self, document: Any) -> int | None:
        pointer = self._options.total_at
        if pointer is None or document is _MISSING:
            return None
        found = at(document, pointer)
        if not isinstance(found, str) or not found.isdecimal():
            raise SourceError(f"{self._where}: there is no number at '{pointer}' of the answer\n  correct 'total_at'")
        return int(found)

    def _next_url(self, answer: Answer, document: Any, records: list[dict[str, Any]]) -> str | None:
        match self._options.paging:
            case LinkPaging():
                return _joined(answer.url, _linked(answer.links), where=self._where)
            case NextUrlPaging(at=pointer):
                return _joined(answer.url, self._text(document, pointer), where=self._where)
            case CursorPaging(at=pointer, param=param):
                token = self._text(document, pointer)
                return None if token is None else _with(answer.url, {param: token})
            case OffsetPaging(param=param):
                # Counted by what came: a server may give fewer than were asked for.
                return None if self._is_last(records) else _with(answer.url, {param: self._records})
            case PagePaging(param=param, first=first):
                return None if self._is_last(records) else _with(answer.url, {param: first + self._pages})
        return None

    def _is_last(self, records: list[dict[str, Any]]) -> bool:
        return not records or (self._total is not None and self._records >= self._total)

    def _text(self, document: Any, pointer: str) -> str | None:
        found = None if document is _MISSING else at(document, pointer)
        if found is _MISSING or found is None or found is False or found == "":
            return None
        if not isinstance(found, str):
            raise SourceError(
                f"{self._where}: what stands at '{pointer}' is neither text nor number\n  correct 'paging'"
            )
        return str(found)

    def _refuse_repetition(self, records: list[dict[str, Any]]) -> None:
        if not records:
            return
        digest = hashlib.blake2b(repr(records).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._seen:
            raise SourceError(
                f"{self._where}: page {self._pages} holds the same records as an earlier page\n"
                "  the service does not heed 'paging' as declared, or its rows moved while they were read"
            )
        self._seen.add(digest)

    def _refuse_loop(self, url: str) -> None:
        digest = hashlib.blake2b(url.encode(), digest_size=16).digest()
        if digest in self._asked:
            raise SourceError(f"{self._where}: page {self._pages} leads back to an earlier page\n  correct 'paging'")
        if self._pages >= self._options.most_pages:
            raise SourceError(
                f"{self._where}: there are more than {self._options.most_pages:,} pages\n"
                "  correct 'paging', or raise 'most_pages' in the table's options"
            )
        self._asked.add(digest)

    def _refuse_changed_total(self, total: int | None) -> None:
        if total is None:
            return
        if self._total is not None and total != self._total:
            raise SourceError(
                f"{self._where}: the service announced {self._total:,} records at first and {total:,} "
                f"on page {self._pages}\n  its rows changed while they were read; load again"
            )
        self._total = total

    def _refuse_other_total(self) -> None:
        if self._total is not None and self._records != self._total:
            raise SourceError(
                f"{self._where}: the service announced {self._total:,} records but gave {self._records:,}\n"
                "  its rows changed while they were read, or 'paging' or 'total_at' is wrong"
            )


def at(document: Any, pointer: str) -> Any:
    """What a JSON pointer leads to; a value of its own where it leads nowhere."""
    found = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return _MISSING
    return found


def named(keys: Iterable[str]) -> str:
    """Keys for a message; one that does not look like a name may be data."""
    told = sorted(key for key in keys if _NAME.fullmatch(key))
    return ", ".join(told[:_LISTED]) or "its name is withheld, for it may be data"


def _keys(found: Any) -> str:
    """Which keys an object has; nothing of a value."""
    if isinstance(found, dict):
        return f"  it is an object with {len(found):,} keys: {named(found)}" if found else "  it is an empty object"
    if isinstance(found, list):
        return "  it is a list"
    return "  it is a number" if isinstance(found, Number) else "  it is a single value"


def _with(url: str, parameters: Mapping[str, str | int | bool]) -> str:
    given = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in parameters.items()}
    return str(httpx.URL(url).copy_merge_params(given)) if given else url


def _joined(url: str, link: str | None, *, where: str) -> str | None:
    if link is None:
        return None
    try:
        return str(httpx.URL(url).join(link))
    except (httpx.InvalidURL, ValueError):
        raise SourceError(f"{where}: the link to the next page is no URL") from None


def _linked(headers: tuple[str, ...]) -> str | None:
    """The target of the link whose relation is ``next``."""
    for header in headers:
        for link in httpx.Response(200, headers={"Link": header}).links.values():
            if "next" in link.get("rel", "").lower().split():
                return link.get("url")
    return None
