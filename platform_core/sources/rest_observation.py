"""Tells how something behind a URL stands, by the headers of its answer or by its body."""

from __future__ import annotations

import datetime as dt
import hashlib
from email.utils import parsedate_to_datetime

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Observation
from platform_core.sources.rest_client import Answer, Client
from platform_core.sources.rest_guard import shown
from platform_core.specs.step_kinds import Compare

_LARGEST_MB = 256
_LONGEST_TAG = 150


def observed(client: Client, url: str, *, by: Compare, where: str) -> Observation:
    """One version of an answer; any status but 200 and 204 is an error.

    Args:
        client: asks, with the connection's credentials and limits.
        url: absolute.
        by: ``STAMP``: ETag, or else Last-Modified; the body is not read then. ``CONTENT``: the body.
        where: source and object, for messages.

    Raises:
        SourceError: the service gave no good answer, or one that tells no version.
    """
    limit = _LARGEST_MB << 20 if by is Compare.CONTENT else None
    answer = client.get(url, limit=limit, what="the connection's 'base_url'", read=_as_it_is)
    changed_at = _moment(answer.modified)
    figures: dict[str, int | float | str] = {"status": answer.status}
    if by is Compare.CONTENT:
        digest = hashlib.sha256(answer.body).hexdigest()
        return Observation(version=digest, changed_at=changed_at, figures={**figures, "bytes": len(answer.body)})
    if answer.etag:
        return Observation(version=_tag(answer.etag), changed_at=changed_at, figures=figures)
    if changed_at is not None:
        return Observation(version=changed_at.isoformat(), changed_at=changed_at, figures=figures)
    raise SourceError(
        f"{where}: {shown(url)} tells no version: its answer has neither ETag nor Last-Modified\n"
        "  declare 'compare: content', which reads the whole answer each time"
    )


def _as_it_is(answer: Answer) -> Answer:
    return answer


def _tag(etag: str) -> str:
    """An ETag, which is any text, as one that fits into a tag."""
    if len(etag) <= _LONGEST_TAG and etag.isascii() and etag.isprintable():
        return etag
    return hashlib.sha256(etag.encode()).hexdigest()


def _moment(value: str) -> dt.datetime | None:
    try:
        found = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return found.astimezone(dt.UTC) if found.tzinfo else found.replace(tzinfo=dt.UTC)
