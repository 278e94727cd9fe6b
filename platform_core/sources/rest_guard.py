"""Lets a connection reach its declared hosts and nothing else: a name is resolved, checked, and dialled by address."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from platform_core.errors import SourceError
from platform_core.plugins.checked_network import CheckedNetwork, Resolve, resolved

_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Origin:
    """Whom a URL addresses; credentials go to one origin only."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def origin_of(url: str) -> Origin:
    """The origin of an absolute http or https URL.

    Raises:
        ValueError: it is no such URL, or names a user; the text says which and holds nothing of the URL.
    """
    try:
        parsed = httpx.URL(url)
        host, port = parsed.raw_host.decode("ascii"), parsed.port
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise ValueError("is not a URL") from None
    if parsed.scheme not in _PORTS:
        raise ValueError("must begin with https:// or http://")
    if parsed.userinfo or "@" in parsed.netloc.decode("ascii", "replace"):
        raise ValueError("must not name a user or a password")
    if not host or "\\" in url or any(character.isspace() for character in url):
        raise ValueError("names no host")
    if port is not None and not 0 < port < 65_536:
        raise ValueError("names no port that there is")
    return Origin(parsed.scheme, host.rstrip(".").lower(), port or _PORTS[parsed.scheme])


def shown(url: str) -> str:
    """A URL for messages: no user, no query, no fragment."""
    try:
        parsed = httpx.URL(url)
        return f"{origin_of(url)}{parsed.path}"
    except (httpx.InvalidURL, ValueError):
        return "an address that is no http URL"


class AllowedHosts:
    """The origins that a connection may address."""

    def __init__(self, base_url: str, *, hosts: Iterable[str] = ()) -> None:
        """Take the declared hosts.

        Args:
            base_url: its own origin is allowed.
            hosts: further ones, as ``host`` or ``host:port``; without a port, that of the base URL's scheme.
        """
        self.base = origin_of(base_url)
        declared = (origin_of(f"{self.base.scheme}://{host}") for host in hosts)
        self._known = {(origin.host, origin.port) for origin in (self.base, *declared)}

    def check(self, url: str, *, where: str, what: str) -> Origin:
        """The origin of a URL that may be asked.

        Args:
            where: source and object.
            what: where the URL comes from, such as ``the redirect``.

        Raises:
            SourceError: it leads somewhere else, or from https to http.
        """
        try:
            origin = origin_of(url)
        except ValueError as error:
            raise SourceError(f"{where}: {what} {error}; it is not followed") from None
        if (origin.host, origin.port) not in self._known:
            known = ", ".join(sorted(f"{host}:{port}" for host, port in self._known))
            raise SourceError(
                f"{where}: {what} leads to {origin}, which is not followed\n  allowed hosts: {known}\n"
                "  if it is right, name it in the connection's 'allowed_hosts'"
            )
        if self.base.scheme == "https" and origin.scheme != "https":
            raise SourceError(f"{where}: {what} leads from https to http, which is not followed")
        return origin


class GuardedNetwork(CheckedNetwork):
    """Opens connections to checked addresses only, ends them at a deadline, and all of them when told to."""

    def __init__(
        self,
        *,
        allow_private: bool,
        where: str,
        network: httpcore.NetworkBackend | None = None,
        resolve: Resolve = resolved,
    ) -> None:
        """Keep the policy.

        Args:
            allow_private: whether this machine and private networks may be reached.
            where: source and object, for messages.
            network: what dials an address.
            resolve: gives the addresses of a name.
        """
        super().__init__(allow_private=allow_private, network=network, resolve=resolve)
        self.deadline = float("inf")
        self._where = where
        self._lock = threading.Lock()
        self._streams: set[_Stream] = set()

    def refusal(self, text: str) -> Exception:
        return SourceError(f"{self._where}: {text}")

    def told(self, host: str, address: str, why: str) -> str:
        return f"{host} has the address {address} ({why}), which is not dialled\n" + (
            "  addresses of this machine and of private networks need 'allow_private: true' on the connection"
            if why in ("private", "this machine")
            else "  no option lets a source reach it"
        )

    def dial(
        self,
        address: str,
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[Any] | None,
    ) -> httpcore.NetworkStream:
        left = self.remaining(timeout, httpcore.ConnectTimeout)
        return self.kept(_Stream(super().dial(address, port, left, local_address, socket_options), self))

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def remaining(self, timeout: float | None, expired: type[Exception]) -> float:
        """Seconds that one call may still take; raises ``expired`` where the deadline has passed."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise expired("the answer took too long")
        return left if timeout is None else min(left, timeout)

    def abort(self) -> None:
        """Make every call that waits in another thread return."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.shut_down()

    def kept(self, stream: _Stream) -> _Stream:
        """Remember a stream until it is closed."""
        with self._lock:
            self._streams.add(stream)
        return stream

    def forgotten(self, stream: _Stream) -> None:
        """Forget a stream."""
        with self._lock:
            self._streams.discard(stream)


class _Stream(httpcore.NetworkStream):
    """One connection under the network's deadline."""

    def __init__(self, stream: httpcore.NetworkStream, network: GuardedNetwork) -> None:
        self._stream = stream
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.remaining(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.remaining(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._network.remaining(timeout, httpcore.ConnectTimeout)
        secured = _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._network)
        self._network.forgotten(self)
        return self._network.kept(secured)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._network.forgotten(self)
        self._stream.close()

    def shut_down(self) -> None:
        opened = self._stream.get_extra_info("socket")
        if opened is not None:
            try:
                opened.shutdown(socket.SHUT_RDWR)
            except OSError:
                # It was closed meanwhile, which is what is wanted.
                return
