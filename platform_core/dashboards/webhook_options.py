"""What can be declared about a service that is told by a webhook when its tables are new."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from platform_core.dashboards.powerbi_options import is_loopback
from platform_core.specs.base import Model, SecretRef


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.password or parts.fragment or "\\" in url:
        raise ValueError("must be a plain URL: https://<host>/<path>, without credentials")
    if not url.isascii() or any(character.isspace() for character in url):
        raise ValueError("must be written in ASCII, without spaces")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(url)):
        raise ValueError("must begin with https://, or the message would cross the network in clear")
    try:
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError:
        raise ValueError("names no port that there is") from None
    return url


class WebhookConnection(Model):
    """Where the message goes, and the key that signs it."""

    url: Annotated[str, AfterValidator(_check_url)] = Field(description="Takes the POST; redirects are not followed.")
    key: SecretRef = Field(description="Key of the signature: at least 24 bytes, or whsec_ and base64.")
    allow_private: bool = Field(
        default=False, description="Whether this machine and addresses of private networks may be reached."
    )


class WebhookOptions(Model):
    """What is told beside which tables are new."""

    url: str = Field(default="", description="Where a person finds the dashboard.")
    parameters: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Passed on as they are: not for secrets."
    )
