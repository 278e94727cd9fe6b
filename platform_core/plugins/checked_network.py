"""Dials the addresses of a name only once they are checked, so that nothing inside can be reached by a detour."""

from __future__ import annotations

import ipaddress
import logging
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

_METADATA = frozenset(
    map(ipaddress.ip_address, ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)
"""Where clouds hand out credentials to whoever asks from inside."""

_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""IPv6 networks whose last 32 bits are an IPv4 address."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Iterable[str]]


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


class CheckedNetwork(httpcore.NetworkBackend):
    """Opens connections to checked addresses only; what a refusal is called is the plug-in's own."""

    def __init__(
        self, *, allow_private: bool, network: httpcore.NetworkBackend | None = None, resolve: Resolve = resolved
    ) -> None:
        """Keep the policy.

        Args:
            allow_private: whether this machine and private networks may be reached.
            network: what dials an address.
            resolve: gives the addresses of a name.
        """
        # httpcore writes headers to its log at level DEBUG: signatures, and links that hold tokens.
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        self._allow_private = allow_private
        self._network = network or httpcore.SyncBackend()
        self._resolve = resolve

    @abstractmethod
    def refusal(self, text: str) -> Exception:
        """The plug-in's error of that text."""

    @abstractmethod
    def told(self, host: str, address: str, why: str) -> str:
        """The text that refuses an address of a host, with what to do."""

    def dial(
        self,
        address: str,
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[Any] | None,
    ) -> httpcore.NetworkStream:
        """Open a connection to an address that was checked."""
        return self._network.connect_tcp(address, port, timeout, local_address, socket_options)

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
                return self.dial(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Never: a URL cannot ask for it."""
        raise self.refusal("sockets of this machine are not dialled")

    def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = list(self._resolve(host, port))
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved ({type(error).__name__})") from None
        for address in addresses:
            if why := why_refused(address, allow_private=self._allow_private):
                raise self.refusal(self.told(host, address, why))
        return addresses
