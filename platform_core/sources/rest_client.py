"""Asks a REST service: guarded, bounded in size and time, repeated a bounded number of times."""

from __future__ import annotations

import datetime as dt
import functools
import random
import ssl
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpcore
import httpx

from platform_core.errors import SourceError
from platform_core.plugins.checked_network import Resolve, resolved
from platform_core.plugins.interfaces import Secret
from platform_core.settings import environment_value
from platform_core.sources.rest_auth import Credentials, Renewable, credentials_of
from platform_core.sources.rest_guard import AllowedHosts, GuardedNetwork, Origin, shown
from platform_core.sources.rest_options import OAuth2Auth, RestOptions
from platform_core.specs.base import SecretRef

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_TRANSIENT = (408, 425, 429)
_LONGEST_BACKOFF = 30.0
_READ_BYTES = 1 << 16
_TOKEN_BYTES = 1 << 20

T = TypeVar("T")


class TransientFaultError(Exception):
    """A failure after which the same request may succeed; the text holds no value.

    Args:
        text: what happened.
        wait: seconds that the server asks to wait; None: it does not say.
    """

    def __init__(self, text: str, *, wait: float | None = None) -> None:
        self.wait = wait
        super().__init__(text)


@dataclass(frozen=True)
class Answer:
    """A complete answer of status 200 or 204.

    Args:
        url: whom it came from, after redirects.
        status: 200 or 204.
        links: values of the header Link.
        body: decompressed; empty where it was not asked for.
        etag: the header ETag; empty where there is none.
        modified: the header Last-Modified; empty where there is none.
    """

    url: str
    status: int
    links: tuple[str, ...]
    body: bytes
    etag: str = ""
    modified: str = ""


class Service:
    """One service for the length of a load: its hosts, credentials and pace, shared by all reads."""

    def __init__(
        self,
        options: RestOptions,
        *,
        secret: Callable[[str], Secret],
        network: httpcore.NetworkBackend | None = None,
        resolve: Resolve = resolved,
    ) -> None:
        """Keep the options; nothing is asked yet.

        Args:
            options: the connection's.
            secret: gives the value of a named secret.
            network: what dials an address.
            resolve: gives the addresses of a name.
        """
        self.options = options
        self.hosts = AllowedHosts(options.base_url, hosts=options.allowed_hosts)
        self.pace = _Pace(options.requests_per_second)
        self._secret = secret
        self._network = network
        self._resolve = resolve
        self._credentials = credentials_of(options.auth, secret=secret)

    def client(self, *, where: str) -> Client:
        """A client for one read."""
        return Client(self, self._credentials, self.network(where), where=where)

    def network(self, where: str) -> GuardedNetwork:
        """A network that dials what this service may reach."""
        return GuardedNetwork(
            allow_private=self.options.allow_private, where=where, network=self._network, resolve=self._resolve
        )

    def headers(self) -> dict[str, str]:
        """The declared headers, secret ones revealed."""
        return {
            name: self._secret(value.secret).reveal().decode() if isinstance(value, SecretRef) else value
            for name, value in self.options.headers.items()
        }


class Client:
    """The requests of one read, one at a time."""

    def __init__(self, service: Service, credentials: Credentials, network: GuardedNetwork, *, where: str) -> None:
        """Open nothing yet.

        Args:
            service: whom to ask.
            credentials: sent to the base URL's origin.
            network: what dials.
            where: source and object, for messages.
        """
        self._service = service
        self._options = service.options
        self._credentials = credentials
        self._network = network
        self._where = where
        self._pool = httpcore.ConnectionPool(
            ssl_context=_trusting(environment_value("SSL_CERT_FILE"), environment_value("SSL_CERT_DIR")),
            max_connections=2,
            keepalive_expiry=15.0,
            network_backend=network,
        )
        self._closing = threading.Event()

    def get(self, url: str, *, limit: int | None, what: str, read: Callable[[Answer], T]) -> T:
        """Ask for a URL until its answer is complete and ``read`` takes it.

        Args:
            url: absolute.
            limit: most bytes of the body, unpacked; None: the body is not read.
            what: where the URL comes from, for messages.
            read: makes something of the answer; raises TransientFaultError where asking again may help.

        Raises:
            SourceError: it stayed without a good answer, or the answer is not to be taken.
        """
        fresh = True
        attempt = 0
        while True:
            try:
                answer = self._ask(url, limit=limit, what=what)
                if answer is not None:
                    return read(answer)
                if not (fresh and isinstance(self._credentials, Renewable)):
                    raise SourceError(
                        f"{self._where}: {shown(url)} refuses the credentials (status 401)\n"
                        "  correct the connection's 'auth' or the secret that it names"
                    )
                fresh = False
                self._credentials.forget()
            except TransientFaultError as fault:
                attempt += 1
                self._pause(fault, attempt, url)

    def abort(self) -> None:
        """Make a request or wait that is under way in another thread end."""
        self._closing.set()
        self._network.abort()

    def close(self) -> None:
        """Close the connections."""
        self._closing.set()
        self._pool.close()

    def _pause(self, fault: TransientFaultError, attempt: int, url: str) -> None:
        options = self._options
        if attempt > options.retries:
            raise SourceError(
                f"{self._where}: {shown(url)} gave no good answer in {attempt} attempts: {fault}"
            ) from None
        if fault.wait is not None:
            if fault.wait > options.longest_wait.total_seconds():
                raise SourceError(
                    f"{self._where}: {shown(url)} asks to wait {fault.wait:.0f} s, longer than the connection's "
                    f"'longest_wait'\n  it said: {fault}"
                ) from None
            seconds = fault.wait * random.uniform(1.0, 1.1)  # noqa: S311 - spreads requests, hides nothing
        else:
            largest = min(options.backoff.total_seconds() * 2 ** (attempt - 1), _LONGEST_BACKOFF)
            seconds = largest * random.uniform(0.5, 1.5)  # noqa: S311
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        if self._closing.wait(max(seconds, 0.0)):
            raise SourceError(f"{self._where}: the source was closed before all rows were read")

    def _ask(self, url: str, *, limit: int | None, what: str) -> Answer | None:
        """One attempt, redirects included; None: the credentials were refused."""
        for _ in range(_MOST_REDIRECTS + 1):
            origin = self._service.hosts.check(url, where=self._where, what=what)
            found = self._exchange(url, origin=origin, limit=limit)
            if not isinstance(found, str):
                return found
            url, what = found, "the redirect"
        raise SourceError(f"{self._where}: more than {_MOST_REDIRECTS} redirects in a row, the last to {shown(url)}")

    def _exchange(self, url: str, *, origin: Origin, limit: int | None) -> Answer | str | None:
        """One request: its answer, the URL that it is redirected to, or None for refused credentials."""
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "edp"}
        if origin == self._service.hosts.base:
            headers |= self._service.headers() | self._credentials.headers(self._token)
        return self._sent("GET", url, headers=headers, content=None, limit=limit)

    def _sent(
        self, method: str, url: str, *, headers: dict[str, str], content: bytes | None, limit: int | None
    ) -> Answer | str | None:
        options, where = self._options, self._where
        self._wait(self._service.pace.seconds())
        connect, silence = options.connect_timeout.total_seconds(), options.read_timeout.total_seconds()
        timeouts = {"connect": connect, "read": silence, "write": silence, "pool": connect}
        self._network.deadline = time.monotonic() + options.answer_timeout.total_seconds()
        target = httpx.URL(url).copy_with(fragment=None)
        raw = [("Host", target.netloc.decode("ascii")), *headers.items()]
        try:
            with self._pool.stream(
                method,
                httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path),
                headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in raw],
                content=content,
                extensions={"timeout": timeouts},
            ) as response:
                return self._taken(response, url, limit)
        except httpcore.TimeoutException as error:
            raise TransientFaultError(f"it took too long ({type(error).__name__})") from None
        except httpcore.ConnectError as error:
            raise TransientFaultError(f"it cannot be reached: {error}") from None
        except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            self._refuse_when_closed()
            raise TransientFaultError(f"the connection broke ({type(error).__name__})") from None
        except (httpcore.LocalProtocolError, UnicodeEncodeError):
            raise SourceError(f"{where}: a header or a secret in it holds a character that HTTP cannot send") from None
        except RuntimeError:
            self._refuse_when_closed()
            raise

    def _refuse_when_closed(self) -> None:
        if self._closing.is_set():
            raise SourceError(f"{self._where}: the source was closed before all rows were read") from None

    def _taken(self, response: httpcore.Response, url: str, limit: int | None) -> Answer | str | None:
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers]
        first = dict(reversed(headers))
        status = response.status
        if status in (200, 204):
            links = tuple(value for name, value in headers if name == "link")
            body = b"" if status == 204 or limit is None else self._body(response, first, url, limit)
            return Answer(url, status, links, body, first.get("etag", ""), first.get("last-modified", ""))
        if status in _REDIRECTS and "location" in first:
            try:
                return str(httpx.URL(url).join(first["location"]))
            except (httpx.InvalidURL, ValueError):
                raise SourceError(f"{self._where}: {shown(url)} redirects to something that is no URL") from None
        if status == 401:
            return None
        if status in _TRANSIENT or status >= 500:
            raise TransientFaultError(f"status {status}", wait=_retry_after(first.get("retry-after")))
        raise SourceError(f"{self._where}: {shown(url)} answered with status {status}{_meaning(status)}")

    def _body(self, response: httpcore.Response, headers: dict[str, str], url: str, limit: int) -> bytes:
        """The whole body, unpacked by us: a packed byte may stand for a thousand."""
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise self._too_large(url, limit)
        encoding = headers.get("content-encoding", "identity").strip().lower() or "identity"
        if encoding not in ("identity", "gzip", "x-gzip"):
            raise SourceError(f"{self._where}: {shown(url)} packs its answer in another way than gzip")
        parts = bytearray()
        unpack = _Gzip() if encoding != "identity" else None
        received = 0
        for chunk in response.iter_stream():
            received += len(chunk)
            if received > limit:
                raise self._too_large(url, limit)
            parts += unpack.some(chunk, limit + 1 - len(parts)) if unpack else chunk
            if len(parts) > limit:
                raise self._too_large(url, limit)
        if unpack is not None and not unpack.complete:
            raise TransientFaultError("the packed answer was cut off")
        return bytes(parts)

    def _too_large(self, url: str, limit: int) -> SourceError:
        return SourceError(
            f"{self._where}: the answer of {shown(url)} is larger than {limit >> 20} MB\n"
            "  ask for smaller pages, or raise 'largest_page_mb' in the table's options"
        )

    def _token(self, auth: OAuth2Auth, form: bytes, headers: dict[str, str]) -> bytes:
        """Ask a token endpoint; it is declared itself, so its host needs no further leave."""
        attempt = 0
        while True:
            try:
                found = self._sent("POST", auth.token_url, headers=headers, content=form, limit=_TOKEN_BYTES)
            except TransientFaultError as fault:
                attempt += 1
                self._pause(fault, attempt, auth.token_url)
                continue
            if isinstance(found, Answer):
                return found.body
            told = "redirects" if found else "refuses the client's id or secret"
            raise SourceError(f"{self._where}: the token endpoint {shown(auth.token_url)} {told}")


class _Gzip:
    """Unpacks gzip, no further than asked."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._begun = False

    @property
    def complete(self) -> bool:
        """Whether the last member came to its end; its checksum was right, too."""
        return self._member.eof or not self._begun

    def some(self, packed: bytes, most: int) -> bytes:
        """What these bytes stand for; ``most`` bytes of it if there are more."""
        found = bytearray()
        while packed and len(found) < most:
            if self._member.eof:
                self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            self._begun = True
            try:
                found += self._member.decompress(packed, most - len(found))
            except zlib.error:
                raise TransientFaultError("the packed answer is damaged") from None
            packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return bytes(found)


class _Pace:
    """Hands out the moments at which requests may go."""

    def __init__(self, per_second: float | None) -> None:
        self._gap = 0.0 if per_second is None else 1.0 / per_second
        self._next = 0.0
        self._lock = threading.Lock()

    def seconds(self) -> float:
        """How long the caller is to wait before its request."""
        with self._lock:
            now = time.monotonic()
            start = max(self._next, now)
            self._next = start + self._gap
            return start - now


@functools.lru_cache(maxsize=4)
def _trusting(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Which certificates are trusted: those of these places, or certifi's. Made once, as it takes some 40 ms."""
    if file or folder:
        return ssl.create_default_context(cafile=file, capath=folder)
    return httpx.create_ssl_context(trust_env=False)


def _retry_after(value: str | None) -> float | None:
    """Seconds of a header Retry-After, which holds seconds or a date."""
    if value is None:
        return None
    text = value.strip()
    if text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
    return max(0.0, (aware - dt.datetime.now(dt.UTC)).total_seconds())


def _meaning(status: int) -> str:
    known = {
        403: "\n  these credentials may not read it",
        404: "\n  there is no such object: correct 'object' or the connection's 'base_url'",
        400: "\n  it does not take the request: correct 'params', 'paging' or 'cursor_format' in the table's options",
        206: "\n  it gave a part only",
    }
    return known.get(status, "")
