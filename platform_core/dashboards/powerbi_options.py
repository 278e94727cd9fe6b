"""What can be declared about a Power BI dataset and the way to it."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from platform_core.specs.base import Duration, Model, SecretRef


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be a plain URL: https://<host>, without credentials or a query")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(url)):
        raise ValueError("must begin with https://, or the client secret would cross the network in clear")
    return url.rstrip("/")


def _as_object(value: object) -> object:
    return {"table": value} if isinstance(value, str) else value


def _whole_seconds(value: timedelta) -> timedelta:
    if value < timedelta(seconds=1):
        raise ValueError("must be at least 1 second")
    return value


BaseUrl = Annotated[str, AfterValidator(_check_url)]
Identifier = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z-]{0,63}$")]
Span = Annotated[Duration, AfterValidator(_whole_seconds)]


class RefreshedTable(Model):
    """A table of the dataset, or one partition of it."""

    table: str = Field(min_length=1)
    partition: str | None = None


class PowerBIConnection(Model):
    """A service principal, and where its token and the service are."""

    tenant: str = Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.-]{0,99}$", description="Id or domain of the Entra tenant.")
    client_id: Identifier = Field(description="Id of the service principal's application.")
    client_secret: SecretRef
    authority_url: BaseUrl = "https://login.microsoftonline.com"
    api_url: BaseUrl = "https://api.powerbi.com"
    scope: str = "https://analysis.windows.net/powerbi/api/.default"


class PowerBIOptions(Model):
    """A dataset (semantic model) in a workspace with Premium capacity; others have no enhanced refresh."""

    workspace: Identifier = Field(description="Id of the workspace (group).")
    dataset: Identifier = Field(description="Id of the dataset (semantic model).")
    tables: tuple[
        Annotated[RefreshedTable, BeforeValidator(_as_object, json_schema_input_type=str | RefreshedTable)], ...
    ] = Field(default=(), description="Tables to refresh, or {table, partition}; none: the whole dataset.")
    refresh_type: Literal["full", "automatic", "dataOnly", "calculate", "clearValues", "defragment"] = "full"
    poll_interval: Span = Field(
        default=timedelta(seconds=30), description="Longest time between two looks; the first ones are closer."
    )
    url: str = Field(default="", description="Where a person finds the report; default: the dataset's page.")
