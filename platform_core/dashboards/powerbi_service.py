"""Talks to the Power BI REST API: token, requests, retries; and reads its answers."""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

from platform_core.dashboards.powerbi_options import PowerBIConnection, PowerBIOptions, is_loopback
from platform_core.dashboards.waiting import Waiting
from platform_core.errors import RefreshError
from platform_core.plugins.interfaces import Secret

COMPLETED = "Completed"
FAILED = ("Failed", "Cancelled", "Disabled", "TimedOut")
"""States in which a refresh has ended without success."""

TRIES = 6
"""Most times that one request is sent while the service or the network fails."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_RENEW_BEFORE = 300.0
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,80}")
_ENTRA_CODE = re.compile(r"AADSTS\d+")
_UNKNOWN = "Unknown"
_SECOND = dt.timedelta(seconds=1)
_STATES = {name.lower(): name for name in (COMPLETED, *FAILED)}


class OutcomeUnknownError(Exception):
    """A request that changes something was sent, and no answer tells what became of it; never leaves the plug-in."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of the service.

    Args:
        status: HTTP status.
        headers: by name in lower case.
        body: decoded JSON; None where there is none.
    """

    status: int
    headers: Mapping[str, str]
    body: Any

    def error_code(self) -> str:
        """The service's code for what is wrong; its texts stay behind, for they may quote values."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return _clean(error.get("code") if isinstance(error, dict) else error) or f"HTTP {self.status}"

    def says_busy(self) -> bool:
        """Whether the service refused because a refresh of the dataset is running."""
        return self.status == HTTPStatus.CONFLICT or "already executing" in json.dumps(self.body).lower()


@dataclass(frozen=True, kw_only=True)
class Refresh:
    """One refresh as the service reports it.

    Args:
        id: its request id.
        enhanced: whether it was asked for through the enhanced API.
        state: Completed, one of :data:`FAILED`, or any other name while it goes on.
        started: UTC; None if not said.
        ended: UTC; None if not said.
        type: the kind of processing, in lower case; empty if not said.
        parts: tables and partitions that it processes; empty if not said.
        codes: error codes, without texts.
    """

    id: str
    enhanced: bool
    state: str
    started: dt.datetime | None
    ended: dt.datetime | None
    type: str
    parts: frozenset[tuple[str, str]]
    codes: tuple[str, ...]

    @property
    def over(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self.state == COMPLETED or self.state in FAILED

    @classmethod
    def read(cls, entry: Mapping[str, Any], *, id: str = "") -> Refresh:
        """Read an entry of the refresh history, or the details of one refresh, whose answer does not repeat its id."""
        return cls(
            id=id or str(entry.get("requestId") or ""),
            enhanced=entry.get("refreshType") == "ViaEnhancedApi",
            state=_state(entry.get("status"), entry.get("extendedStatus")),
            started=_time(entry.get("startTime")),
            ended=_time(entry.get("endTime")),
            type=str(entry.get("type") or "").lower(),
            parts=frozenset(
                (str(part["table"]), str(part.get("partition") or ""))
                for part in _mappings(entry.get("objects"))
                if part.get("table")
            ),
            codes=_codes(entry),
        )


Exchange = Callable[[str, str, Mapping[str, str], Mapping[str, Any] | None, Mapping[str, str] | None], Answer]
"""Carries one request: method, URL, headers, JSON body and form. It raises what httpx raises."""


class OverHttp:
    """Carries requests over HTTP. Close it."""

    def __init__(self, api_url: str, *, answer_within: float) -> None:
        """Open a client.

        Args:
            api_url: where the service is.
            answer_within: seconds for each wait.
        """
        import httpx

        # Proxies are for the way out, never for this machine itself.
        self._client = httpx.Client(timeout=httpx.Timeout(answer_within), trust_env=not is_loopback(api_url))

    def __call__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None,
        form: Mapping[str, str] | None,
    ) -> Answer:
        """Send one request and read its answer."""
        response = self._client.request(method, url, headers=headers, json=body, data=form)
        try:
            content = response.json() if response.content else None
        except ValueError:
            content = None
        return Answer(status=response.status_code, headers=response.headers, body=content)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class PowerBIService:
    """One dataset's refreshes, over HTTP. Use as a context manager."""

    def __init__(
        self,
        connection: PowerBIConnection,
        options: PowerBIOptions,
        *,
        secret: Callable[[str], Secret],
        waiting: Waiting,
        answer_within: float,
        exchange: Exchange | None = None,
    ) -> None:
        self._connection = connection
        self._secret = secret
        self._waiting = waiting
        self._token = ""
        self._token_ends = 0.0
        self._ahead: tuple[dt.timedelta, dt.timedelta] | None = None
        self._refreshes = (
            f"{connection.api_url}/v1.0/myorg/groups/{options.workspace}/datasets/{options.dataset}/refreshes"
        )
        self._exchange = exchange or OverHttp(connection.api_url, answer_within=answer_within)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._exchange, OverHttp):
            self._exchange.close()

    def now(self) -> dt.datetime:
        """The service's own time, UTC, at the least, as its answers told it."""
        return self._waiting.clock.now() + (self._ahead[0] if self._ahead else dt.timedelta(0))

    def time_there(self, moment: dt.datetime) -> dt.datetime:
        """A moment of this machine in the service's own time, UTC, at the most."""
        return moment + (self._ahead[1] if self._ahead else dt.timedelta(0))

    def ask(self, body: Mapping[str, Any]) -> Answer:
        """Ask for a refresh.

        Raises:
            OutcomeUnknownError: it may or may not have been accepted.
            RefreshError: the service cannot be reached, or refuses the service principal.
        """
        return self._send("POST", self._refreshes, body=body)

    def history(self) -> list[Refresh]:
        """The latest refreshes of the dataset, whoever asked for them."""
        answer = self._send("GET", f"{self._refreshes}?$top=20")
        if answer.status != HTTPStatus.OK:
            raise RefreshError(f"Power BI does not list the dataset's history: {answer.error_code()}{_advice(answer)}")
        entries = answer.body.get("value") if isinstance(answer.body, dict) else answer.body
        return [Refresh.read(entry) for entry in _mappings(entries)]

    def details(self, request_id: str) -> Refresh | None:
        """One refresh; None where the service does not know it."""
        answer = self._send("GET", f"{self._refreshes}/{request_id}")
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.status not in (HTTPStatus.OK, HTTPStatus.ACCEPTED) or not isinstance(answer.body, dict):
            raise RefreshError(f"Power BI does not show refresh {request_id}: {answer.error_code()}{_advice(answer)}")
        return Refresh.read(answer.body, id=request_id)

    def cancel(self, request_id: str) -> bool:
        """Whether a refresh could be cancelled; asked once, for a cancelled run has no time to try again."""
        import httpx

        try:
            answer = self._once("DELETE", f"{self._refreshes}/{request_id}", headers=self._authorization())
        except httpx.RequestError:
            return False
        return answer.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT)

    def _send(self, method: str, url: str, *, body: Mapping[str, Any] | None = None) -> Answer:
        """Send with the token, which is renewed once if it is refused."""
        answer = self._persist(method, url, body=body)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self._token = ""
            answer = self._persist(method, url, body=body)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise RefreshError(
                f"Power BI refuses the token of application {self._connection.client_id}, a new one too: HTTP 401"
                "\n  allow service principals in the tenant's Power BI settings, and add this one to the workspace"
            )
        return answer

    def _persist(self, method: str, url: str, *, body: Mapping[str, Any] | None) -> Answer:
        """Send until there is an answer worth reading; other calls than POST may be sent again whatever happened."""
        import httpx

        failure = ""
        for tried in range(TRIES):
            if tried:
                self._waiting.pause(_pause(tried))
            headers = self._authorization()
            sent, away = True, 0.0
            try:
                answer = self._once(method, url, headers=headers, body=body)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                failure, sent = type(error).__name__, False
            except httpx.RequestError as error:
                failure = type(error).__name__
            else:
                if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                    failure, sent = "HTTP 429, too many requests", False
                elif answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    failure = f"HTTP {answer.status}"
                else:
                    return answer
                away = self._retry_after(answer)
            if sent and method == "POST":
                raise OutcomeUnknownError(failure)
            self._waiting.pause(away)
        raise RefreshError(f"Power BI failed {TRIES} times in a row ({failure}) at {url.split('?')[0]}")

    def _authorization(self) -> dict[str, str]:
        if not self._token or self._waiting.clock.monotonic() >= self._token_ends:
            self._renew()
        return {"Authorization": f"Bearer {self._token}"}

    def _renew(self) -> None:
        """Get a token by the client-credentials grant."""
        import httpx

        connection = self._connection
        url = f"{connection.authority_url}/{connection.tenant}/oauth2/v2.0/token"
        failure = ""
        for tried in range(TRIES):
            if tried:
                self._waiting.pause(_pause(tried))
            try:
                answer = self._once("POST", url, form=self._grant())
            except httpx.RequestError as error:
                failure = type(error).__name__
                continue
            if answer.status == HTTPStatus.TOO_MANY_REQUESTS or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                failure = f"HTTP {answer.status}"
                self._waiting.pause(self._retry_after(answer))
                continue
            self._keep(answer)
            return
        raise RefreshError(f"no token: {connection.authority_url} failed {TRIES} times in a row ({failure})")

    def _grant(self) -> dict[str, str]:
        connection = self._connection
        return {
            "grant_type": "client_credentials",
            "client_id": connection.client_id,
            "client_secret": self._secret(connection.client_secret.secret).reveal().decode(),
            "scope": connection.scope,
        }

    def _keep(self, answer: Answer) -> None:
        body = answer.body if isinstance(answer.body, dict) else {}
        if answer.status != HTTPStatus.OK or not isinstance(body.get("access_token"), str):
            codes = [answer.error_code(), *_ENTRA_CODE.findall(str(body.get("error_description", "")))[:1]]
            raise RefreshError(
                f"no token for service principal {self._connection.client_id}: {', '.join(codes)}"
                f"\n  asked {self._connection.authority_url}, tenant {self._connection.tenant}"
                f"\n  check client_id, tenant, and that secret '{self._connection.client_secret.secret}' "
                "is current"
            )
        lifetime = _seconds(body.get("expires_in"))
        self._token = body["access_token"]
        self._token_ends = self._waiting.clock.monotonic() + lifetime - min(_RENEW_BEFORE, lifetime / 10)

    def _once(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        begun = self._waiting.clock.now()
        answer = self._exchange(method, url, headers or {}, body, form)
        if url.startswith(self._refreshes):
            self._learn_time(answer, begun)
        return answer

    def _learn_time(self, answer: Answer, begun: dt.datetime) -> None:
        """Narrow down how far the clock of the service is ahead of ours: it told a whole second between two looks."""
        told = _http_date(answer.headers.get("date", ""))
        if told is None:
            return
        least, most = told - self._waiting.clock.now(), told + _SECOND - begun
        if self._ahead is not None and least <= self._ahead[1] and self._ahead[0] <= most:
            least, most = max(least, self._ahead[0]), min(most, self._ahead[1])
        self._ahead = least, most

    def _retry_after(self, answer: Answer) -> float:
        """Seconds that the service wants us to stay away, at least; it says them as a number or a date."""
        text = answer.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdecimal():
            return float(text)
        until = _http_date(text)
        return 0.0 if until is None else max(0.0, (until - self.now()).total_seconds())


def _pause(tried: int) -> float:
    return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (tried - 1)))


def _advice(answer: Answer) -> str:
    match answer.status:
        case HTTPStatus.FORBIDDEN:
            return "\n  give the service principal write access to the dataset, and allow it in the tenant's settings"
        case HTTPStatus.NOT_FOUND:
            return "\n  check 'workspace' and 'dataset', and that the service principal is a member of the workspace"
        case _:
            return ""


def refusal(answer: Answer) -> RefreshError:
    """What to raise where the service does not accept a refresh."""
    return RefreshError(f"Power BI does not accept the refresh: {answer.error_code()}{_advice(answer)}")


def _state(status: object, extended: object) -> str:
    """One state from two fields: a failure in either counts, success needs both to agree."""
    names = [_STATES.get(str(name).lower(), str(name)) for name in (extended, status) if name]
    for name in names:
        if name in FAILED:
            return name
    if names and all(name == COMPLETED for name in names):
        return COMPLETED
    going_on = [name for name in names if name not in (COMPLETED, _UNKNOWN)]
    return _clean(going_on[0]) or _UNKNOWN if going_on else _UNKNOWN


def _codes(entry: Mapping[str, Any]) -> tuple[str, ...]:
    found = [message.get("code") for message in _mappings(entry.get("messages"))]
    try:
        exception = json.loads(entry.get("serviceExceptionJson") or "{}")
    except (TypeError, ValueError):
        exception = {}
    if isinstance(exception, dict):
        found.append(exception.get("errorCode"))
    return tuple(dict.fromkeys(filter(None, (_clean(code) for code in found))))


def _clean(code: object) -> str:
    text = str(code or "")
    return text if _CODE.fullmatch(text) else ""


def _mappings(value: object) -> Iterable[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _seconds(value: object) -> float:
    try:
        return max(0.0, float(str(value)))
    except ValueError:
        return 0.0


def _time(value: object) -> dt.datetime | None:
    """A time of the service, UTC; the zone is left out of some answers, and fractions have up to seven digits."""
    try:
        time = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


def _http_date(text: str) -> dt.datetime | None:
    try:
        time = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time
