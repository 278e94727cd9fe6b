"""What can be declared about a REST service and about one object of it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from platform_core.sources.rest_guard import origin_of
from platform_core.sources.types import TypedOptions
from platform_core.specs.base import Duration, Model, SecretRef

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = frozenset(("host", "content-length", "connection", "transfer-encoding", "accept-encoding"))


def _check_header(name: str) -> str:
    if not _HEADER.fullmatch(name) or name.lower() in _OURS:
        raise ValueError("is no name of a header that can be set")
    return name


def _check_pointer(value: str) -> str:
    if value and not value.startswith("/"):
        raise ValueError("must be a JSON pointer: /data/items, or nothing for the whole answer")
    return value


def _check_url(value: str) -> str:
    origin_of(value)
    if "?" in value or "#" in value:
        raise ValueError("must hold no query and no fragment")
    return value


Header = Annotated[str, AfterValidator(_check_header)]
"""Name of an HTTP header."""

Pointer = Annotated[str, AfterValidator(_check_pointer)]
"""Where a value stands in a JSON document (RFC 6901)."""

Url = Annotated[str, AfterValidator(_check_url)]
"""An absolute http or https URL without user and query."""

Parameter = str | int | bool
"""A value in a URL's query."""


class NoAuth(Model):
    """Nobody asks who we are."""

    type: Literal["none"] = "none"


class BearerAuth(Model):
    """A token in the header Authorization."""

    type: Literal["bearer"]
    token: SecretRef


class ApiKeyAuth(Model):
    """A key in a header of the service's choice."""

    type: Literal["api_key"]
    header: Header = "X-API-Key"
    key: SecretRef


class BasicAuth(Model):
    """A user and a password."""

    type: Literal["basic"]
    user: str
    password: SecretRef


class OAuth2Auth(Model):
    """A token that is fetched with client credentials (RFC 6749, 4.4), and again before and when it expires."""

    type: Literal["oauth2"]
    token_url: Url
    client_id: str
    client_secret: SecretRef
    scope: str | None = None
    send: Literal["body", "basic"] = Field(
        default="body", description="Whether id and secret go into the form or into the header Authorization."
    )
    parameters: dict[str, str] = Field(
        default_factory=dict, description="Further fields of the form.", examples=[{"audience": "https://api"}]
    )


Auth = Annotated[NoAuth | BearerAuth | ApiKeyAuth | BasicAuth | OAuth2Auth, Field(discriminator="type")]


class RestOptions(Model):
    """How a service is reached."""

    base_url: Url = Field(description="Where all paths begin.", examples=["https://api.example.com/v2"])
    auth: Auth = Field(default=NoAuth(), description="none, bearer, api_key, basic or oauth2.")
    headers: dict[Header, str | SecretRef] = Field(
        default_factory=dict, description="Sent with every request to the base URL's host, and to no other."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Hosts beside the base URL's that links and redirects may lead to: host or host:port."
    )
    allow_private: bool = Field(
        default=False, description="Whether the service may be on this machine or in a private network."
    )
    connect_timeout: Duration = timedelta(seconds=10)
    read_timeout: Duration = Field(default=timedelta(seconds=60), description="Longest silence of the server.")
    answer_timeout: Duration = Field(default=timedelta(minutes=5), description="Longest time for one whole answer.")
    retries: int = Field(default=5, ge=0, le=20, description="How often one request is repeated after a failure.")
    backoff: Duration = Field(
        default=timedelta(seconds=1), description="About the first wait before a repetition; each doubles, up to 30 s."
    )
    longest_wait: Duration = Field(
        default=timedelta(minutes=5), description="A server that asks to wait longer (Retry-After) stops the load."
    )
    requests_per_second: float | None = Field(default=None, gt=0, le=1000, description="Default: no limit of our own.")

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            _check_url(f"https://{host}")
            if "/" in host or "*" in host:
                raise ValueError("must be written host or host:port, without scheme, path and wildcards")
        return value


class NoPaging(Model):
    """One answer holds all."""

    style: Literal["none"] = "none"


class LinkPaging(Model):
    """The header Link names the next page (RFC 8288, rel="next")."""

    style: Literal["link"]


class NextUrlPaging(Model):
    """The answer holds the next page's URL; the last one's is null, empty or missing."""

    style: Literal["next_url"]
    at: Pointer = Field(examples=["/links/next"])


class CursorPaging(Model):
    """The answer holds a token that the next request hands back; the last one's is null, empty or missing."""

    style: Literal["cursor"]
    at: Pointer = Field(examples=["/meta/next_cursor"])
    param: str = "cursor"


class OffsetPaging(Model):
    """Requests count the records they have; the last page is an empty one, or the one that completes the total."""

    style: Literal["offset"]
    param: str = "offset"
    size_param: str | None = "limit"
    size: int = Field(default=100, ge=1)


class PagePaging(Model):
    """Requests count pages; the last page is an empty one, or the one that completes the total."""

    style: Literal["page"]
    param: str = "page"
    first: int = Field(default=1, ge=0)
    size_param: str | None = None
    size: int = Field(default=100, ge=1)


Paging = Annotated[
    NoPaging | LinkPaging | NextUrlPaging | CursorPaging | OffsetPaging | PagePaging, Field(discriminator="style")
]


class RestObjectOptions(TypedOptions):
    """How one object of a service is read; the object itself is its path below the base URL."""

    params: dict[str, Parameter] = Field(default_factory=dict, description="Sent with the first request.")
    records_at: Pointer = Field(default="", description="Where the list of records stands; default: the whole answer.")
    missing_is_empty: bool = Field(
        default=False, description="Whether an answer without 'records_at', or null there, is a page without records."
    )
    paging: Paging = Field(default=NoPaging(), description="none, link, next_url, cursor, offset or page.")
    total_at: Pointer | None = Field(
        default=None, description="Where the number of all records stands; it is held against what was read."
    )
    undeclared: Literal["text", "ignore", "refuse"] = Field(
        default="text",
        description="What happens to keys that 'columns' does not name: text or JSON text, left out, or an error.",
    )
    cursor_param: str | None = Field(
        default=None,
        description="Query parameter that takes the lowest cursor value wanted; it must include that value.",
    )
    cursor_format: str = Field(
        default="iso",
        description="How a time is written there: iso, iso_seconds, date, unix, unix_ms, or a pattern such as %Y%m%d.",
    )
    cursor_template: str = Field(
        default="{since}", description="What the parameter holds.", examples=["modified ge {since}"]
    )
    largest_page_mb: int = Field(default=32, ge=1, le=512, description="Size that no answer exceeds, unpacked.")
    most_pages: int = Field(default=100_000, ge=1, description="A read that comes to more pages stops.")

    @field_validator("cursor_format")
    @classmethod
    def _check_format(cls, value: str) -> str:
        if value not in ("iso", "iso_seconds", "date", "unix", "unix_ms") and "%" not in value:
            raise ValueError("must be iso, iso_seconds, date, unix, unix_ms, or a pattern with %")
        return value

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        if "{since}" not in self.cursor_template:
            raise ValueError("cursor_template must hold {since}")
        if self.undeclared != "text" and not self.columns:
            raise ValueError("undeclared: ignore or refuse needs 'columns'")
        return self
