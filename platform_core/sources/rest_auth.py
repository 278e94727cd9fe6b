"""Who we are to a REST service, as headers that are made at the moment of use."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from urllib.parse import quote, urlencode

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Secret
from platform_core.sources.rest_guard import shown
from platform_core.sources.rest_options import ApiKeyAuth, BasicAuth, BearerAuth, NoAuth, OAuth2Auth

_EARLY_SECONDS = 30.0
_LONGEST_SECONDS = 3600.0

AskToken = Callable[[OAuth2Auth, bytes, dict[str, str]], bytes]
"""Posts a form with headers to the token endpoint and gives the body of its answer."""


class Credentials(ABC):
    """Makes the headers that say who we are."""

    @abstractmethod
    def headers(self, ask: AskToken) -> dict[str, str]:
        """Headers for one request; ``ask`` reaches the token endpoint where one is needed."""


class Renewable(Credentials):
    """Credentials that can be had anew."""

    @abstractmethod
    def forget(self) -> None:
        """Drop what the service has just refused."""


def credentials_of(
    auth: NoAuth | BearerAuth | ApiKeyAuth | BasicAuth | OAuth2Auth, *, secret: Callable[[str], Secret]
) -> Credentials:
    """Credentials as declared.

    Args:
        auth: the connection's.
        secret: gives the value of a named secret.
    """
    if isinstance(auth, OAuth2Auth):
        return _Token(auth, secret)
    return _Fixed(auth, secret)


class _Fixed(Credentials):
    """A token, key or password from the secret store."""

    def __init__(self, auth: NoAuth | BearerAuth | ApiKeyAuth | BasicAuth, secret: Callable[[str], Secret]) -> None:
        self._auth = auth
        self._secret = secret

    def headers(self, ask: AskToken) -> dict[str, str]:
        match self._auth:
            case BearerAuth(token=reference):
                return {"Authorization": f"Bearer {_revealed(self._secret(reference.secret))}"}
            case ApiKeyAuth(header=name, key=reference):
                return {name: _revealed(self._secret(reference.secret))}
            case BasicAuth(user=user, password=reference):
                return {"Authorization": _basic(user, _revealed(self._secret(reference.secret)))}
        return {}


class _Token(Renewable):
    """A token of a token endpoint, kept while it is good."""

    def __init__(self, auth: OAuth2Auth, secret: Callable[[str], Secret]) -> None:
        self._auth = auth
        self._secret = secret
        self._lock = threading.Lock()
        self._value = ""
        self._good_until = 0.0

    def headers(self, ask: AskToken) -> dict[str, str]:
        with self._lock:
            if not self._value or time.monotonic() >= self._good_until:
                self._fetch(ask)
            return {"Authorization": f"Bearer {self._value}"}

    def forget(self) -> None:
        with self._lock:
            self._value = ""

    def _fetch(self, ask: AskToken) -> None:
        auth = self._auth
        form = {"grant_type": "client_credentials", **auth.parameters}
        if auth.scope is not None:
            form["scope"] = auth.scope
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        password = _revealed(self._secret(auth.client_secret.secret))
        if auth.send == "basic":
            headers["Authorization"] = _basic(quote(auth.client_id, safe=""), quote(password, safe=""))
        else:
            form |= {"client_id": auth.client_id, "client_secret": password}
        content = urlencode(form).encode()
        answer = ask(auth, content, {**headers, "Content-Length": str(len(content))})
        try:
            found = json.loads(answer)
        except ValueError:
            found = None
        value = found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]+", value):
            raise SourceError(f"the token endpoint {shown(auth.token_url)} gave no access token")
        self._value = value
        self._good_until = time.monotonic() + _lifetime(found)


def _lifetime(found: dict[str, object]) -> float:
    """Seconds for which a token is used; an hour where the endpoint does not say."""
    try:
        seconds = float(str(found.get("expires_in", "")))
    except ValueError:
        return _LONGEST_SECONDS
    return min(max(seconds - _EARLY_SECONDS, seconds / 2), _LONGEST_SECONDS)


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _revealed(secret: Secret) -> str:
    return secret.reveal().decode().strip()
