"""A Power BI service on this machine: the documented API over real HTTP, with faults that a test can order."""

from __future__ import annotations

import datetime as dt
import json
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TENANT, CLIENT, SECRET = "contoso.example", "11111111-aaaa-4bbb-8ccc-222222222222", "s3cret~Value.of-the-app"
WORKSPACE, DATASET = "f089354e-8366-4e18-aea3-4cb4a3a50b48", "cfafbeb1-8037-4d0c-896e-a46fb27ff229"
ROOT = f"/v1.0/myorg/groups/{WORKSPACE}/datasets/{DATASET}/refreshes"
TABLES = [{"table": "Rides"}, {"table": "Weather"}, {"table": "Other"}]
"""All tables of the dataset, which a refresh of the whole comes to."""

BUSY = "Invalid dataset refresh request. Another refresh request is already executing"

Answer = tuple[int, dict[str, str], Any]
"""Status, headers and content."""


class ManualClock:
    """A clock that moves only when someone sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> dt.datetime:
        return self.at(self.seconds)

    def at(self, seconds: float) -> dt.datetime:
        return dt.datetime(2026, 11, 21, 6, 0, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds


@dataclass
class Fault:
    """What happens to one request instead of an answer, or before it.

    Args:
        status: answered in place of the real thing; 0: none.
        process: do the real thing first.
        silence: seconds until anything is said; None: say nothing and close the connection.
        headers: of the answer.
        body: of the answer.
        action: done in place of an answer, and of ``status``.
    """

    status: int = 0
    process: bool = False
    silence: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    action: Callable[[], None] | None = None


@dataclass
class Entry:
    """One refresh that the service knows."""

    id: str
    started: float
    duration: float
    outcome: str
    kind: str = "ViaEnhancedApi"
    body: dict[str, Any] = field(default_factory=dict)
    listed_after: float = 0.0
    error: dict[str, Any] | None = None


class PowerBIServer:
    """State of the service: refreshes run for a time and then end as ordered."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ahead = dt.timedelta(0)
        self.duration = 20.0
        self.outcome = "Completed"
        self.error: dict[str, Any] | None = None
        self.token_lifetime: Any = 3599
        self.busy_status = 400
        self.list_delay = 0.0
        self.dropping = False
        self.entries: list[Entry] = []
        self.idle: set[str] = set()
        self.tokens: list[str] = []
        self.revoked: set[str] = set()
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.url = ""
        self.latency: Callable[[], float] = lambda: 0.0
        self.accepts: Callable[[Entry], None] = lambda _: None
        self.choose: Callable[[str], Fault | None] = self._ordered

    def _ordered(self, kind: str) -> Fault | None:
        return self.faults[kind].pop(0) if self.faults.get(kind) else None

    def order(self, request: str, *faults: Fault) -> None:
        """Let the next requests of a kind (token, POST, list, details, DELETE) fail."""
        self.faults.setdefault(request, []).extend(faults)

    def count(self, request: str) -> int:
        return sum(kind == request for kind, _ in self.requests)

    def now(self) -> dt.datetime:
        return self.clock.now() + self.ahead

    def start(self, **changes: Any) -> Entry:
        """Start a refresh, as somebody else might."""
        values = {
            "started": self.clock.seconds,
            "duration": self.duration,
            "outcome": self.outcome,
            "error": self.error,
        }
        entry = Entry(str(uuid.uuid4()), **(values | changes))
        self.entries.append(entry)
        return entry

    def running(self) -> list[Entry]:
        going = (entry for entry in self.entries if self.clock.seconds < entry.started + entry.duration)
        # Entries that the history shows for ever, though nothing goes on.
        return [entry for entry in going if entry.id not in self.idle]

    def http_date(self) -> str:
        return f"{self.now():%a, %d %b %Y %H:%M:%S} GMT"

    def serve(self, method: str, path: str, body: bytes, authorization: str) -> tuple[Fault | None, Answer | None]:
        """One request: what goes wrong with it, and what is answered; no answer where nothing is said."""
        kind = kind_of(method, path)
        self.requests.append((kind, path))
        self.clock.seconds += self.latency()
        fault = self.choose(kind)
        token = authorization.removeprefix("Bearer ")
        answer = self.answer(method, path, body, token) if fault is None or fault.process else None
        if fault is None:
            return None, answer
        if fault.action is not None:
            fault.action()
        return fault, None if fault.status == 0 else (fault.status, fault.headers, fault.body)

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, dict[str, str], Any]:
        if path == f"/{TENANT}/oauth2/v2.0/token":
            return self._token(dict(urllib.parse.parse_qsl(body.decode())))
        if token not in self.tokens or token in self.revoked:
            return 403 if not token else 401, {}, {"error": {"code": "TokenExpired"}}
        place = path.split("?")[0]
        if place == ROOT and method == "POST":
            return self._ask(json.loads(body))
        if place == ROOT:
            listed = [entry for entry in self.entries if self.clock.seconds >= entry.started + entry.listed_after]
            return 200, {}, {"value": [self._listed(entry) for entry in reversed(listed)]}
        found = [entry for entry in self.entries if place == f"{ROOT}/{entry.id}" and entry.kind == "ViaEnhancedApi"]
        if not found:
            return 404, {}, {"error": {"code": "PowerBIEntityNotFound"}}
        if method == "DELETE":
            found[0].duration, found[0].outcome = self.clock.seconds - found[0].started, "Cancelled"
            return 200, {}, None
        return self._details(found[0])

    def _token(self, form: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        if form.get("client_secret") != SECRET or form.get("client_id") != CLIENT:
            text = "AADSTS7000215: Invalid client secret provided. Trace ID: 1234"
            return 401, {}, {"error": "invalid_client", "error_description": text}
        assert form["grant_type"] == "client_credentials" and form["scope"].endswith("/.default")
        self.tokens.append(f"token-{uuid.uuid4()}")
        return 200, {}, {"token_type": "Bearer", "expires_in": self.token_lifetime, "access_token": self.tokens[-1]}

    def _ask(self, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        self.bodies.append(body)
        if self.running():
            return self.busy_status, {}, {"error": {"code": "InvalidRequest", "message": BUSY}}
        if self.dropping:
            id_ = str(uuid.uuid4())
        else:
            entry = self.start(body=body, listed_after=self.list_delay)
            id_ = entry.id
            self.accepts(entry)
        return 202, {"x-ms-request-id": id_, "Location": f"https://region.example{ROOT}/{id_}"}, None

    def _status(self, entry: Entry) -> tuple[str, str]:
        gone = self.clock.seconds - entry.started
        if gone >= entry.duration:
            # A time-out is told by the extended status alone.
            return ("Failed" if entry.outcome == "TimedOut" else entry.outcome), entry.outcome
        return "Unknown", "NotStarted" if gone < entry.duration / 4 else "InProgress"

    def _times(self, entry: Entry, suffix: str) -> dict[str, str]:
        begin = self.now() - dt.timedelta(seconds=self.clock.seconds - entry.started)
        times = {"startTime": f"{begin:%Y-%m-%dT%H:%M:%S}.1838734{suffix}"}
        if self.clock.seconds >= entry.started + entry.duration:
            times["endTime"] = f"{begin + dt.timedelta(seconds=entry.duration):%Y-%m-%dT%H:%M:%S}.1838734{suffix}"
        return times

    def _listed(self, entry: Entry) -> dict[str, Any]:
        status, extended = self._status(entry)
        # The list says 'Unknown' alone of what is going on.
        told = {"status": status} if status == "Unknown" else {"status": status, "extendedStatus": extended}
        if status == "Failed" and entry.error:
            told["serviceExceptionJson"] = json.dumps(entry.error)
        return {"requestId": entry.id, "refreshType": entry.kind, **self._times(entry, "Z"), **told}

    def _details(self, entry: Entry) -> tuple[int, dict[str, str], Any]:
        status, extended = self._status(entry)
        told = {"status": status, "extendedStatus": extended, "type": entry.body.get("type", "full").capitalize()}
        objects = [{"table": part["table"], "status": status} for part in entry.body.get("objects", TABLES)]
        if status == "Failed" and entry.error:
            told["messages"] = [{"code": entry.error["errorCode"], "message": entry.error["errorDescription"]}]
        return 202 if status == "Unknown" else 200, {}, {**self._times(entry, ""), **told, "objects": objects}


def kind_of(method: str, path: str) -> str:
    if path.endswith("/token"):
        return "token"
    if method != "GET":
        return method
    return "list" if path.split("?")[0] == ROOT else "details"


@contextmanager
def powerbi_server() -> Iterator[PowerBIServer]:
    """The service, listening on a free port of the loopback address."""
    state = PowerBIServer()
    woken = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def date_time_string(self, timestamp: float | None = None) -> str:
            return state.http_date()

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault, answer = state.serve(self.command, self.path, body, self.headers.get("Authorization") or "")
            if fault is not None and fault.silence:
                woken.wait(fault.silence)
            if answer is None:
                self.close_connection = True
                return
            status, headers, content = answer
            data = b"" if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (
                {"Content-Length": str(len(data)), "Content-Type": "application/json"} | headers
            ).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - names of the standard library

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        woken.set()
        server.shutdown()
        server.server_close()
        thread.join()
