"""Lets a connection reach its declared hosts and nothing else: a name is resolved, checked, and dialled by address."""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from platform_core.errors import SourceError

_PORTS = {"https": 443, "http": 80}
_METADATA = frozenset(
    map(ipaddress.ip_address, ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)
"""Where clouds hand out credentials to whoever asks from inside."""

_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""IPv6 networks whose last 32 bits are an IPv4 address."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Iterable[str]]


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


def why_refused(address: str, *, allow_private: bool) -> str | None:
    """Why an address is not dialled; None where it may be.

    Args:
        address: in any written form that ``getaddrinfo`` gives.
        allow_private: whether addresses of this machine and of private networks are meant.
    """
    return next((why for one in _meanings(address) if (why := _why(one, allow_private))), None)


def _why(address: Address, allow_private: bool) -> str | None:
    if address in _METADATA:
        return "the metadata service of a cloud"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    if address.is_unspecified or (address.version == 4 and address in ipaddress.IPv4Network("0.0.0.0/8")):
        return "unspecified"
    if address.version == 4 and address in ipaddress.IPv4Network("240.0.0.0/4"):
        return "reserved"
    if allow_private:
        return None
    if address.is_loopback:
        return "this machine"
    return None if address.is_global else "private"


def _meanings(address: str) -> list[Address]:
    """The address, and the IPv4 addresses that an IPv6 address stands for."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return [parsed]
    if parsed.ipv4_mapped is not None:
        return [parsed.ipv4_mapped]
    inner: list[Address] = [parsed]
    if parsed.sixtofour is not None:
        inner.append(parsed.sixtofour)
    if parsed.teredo is not None:
        inner.extend(parsed.teredo)
    if int(parsed) > 1 and any(parsed in network for network in _TRANSLATED):
        inner.append(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF))
    return inner


def resolved(host: str, port: int) -> list[str]:
    """All addresses of a name, as the operating system resolves it; odd forms of an address become plain ones."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedNetwork(httpcore.NetworkBackend):
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
        # httpcore writes headers of answers to its log at level DEBUG, and with them links that hold tokens.
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        self.deadline = float("inf")
        self._allow_private = allow_private
        self._where = where
        self._network = network or httpcore.SyncBackend()
        self._resolve = resolve
        self._lock = threading.Lock()
        self._streams: set[_Stream] = set()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Dial the very address that was checked, so that a second answer of the resolver cannot matter."""
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._checked(host, port):
            try:
                stream = self._network.connect_tcp(
                    address, port, self.remaining(timeout, httpcore.ConnectTimeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            return self.kept(_Stream(stream, self))
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Never: a URL cannot ask for it."""
        raise SourceError(f"{self._where}: sockets of this machine are not dialled")

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

    def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = list(self._resolve(host, port))
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved ({type(error).__name__})") from None
        for address in addresses:
            if why := why_refused(address, allow_private=self._allow_private):
                raise SourceError(
                    f"{self._where}: {host} has the address {address} ({why}), which is not dialled\n"
                    + (
                        "  addresses of this machine and of private networks need 'allow_private: true' "
                        "on the connection"
                        if why in ("private", "this machine")
                        else "  no option lets a source reach it"
                    )
                )
        return addresses


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
