"""Dials the addresses of a name only once they are checked, so that nothing inside can be reached by a detour."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from platform_core.errors import RefreshError

Resolve = Callable[[str, int], Iterable[str]]

_CREDENTIALS_OF_CLOUDS = frozenset(
    map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)
_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""IPv6 networks whose last 32 bits are an IPv4 address."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def resolved(host: str, port: int) -> list[str]:
    """All addresses of a name, as the operating system resolves it; odd forms of an address become plain ones."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_dialled(address: str, *, allow_private: bool) -> bool:
    """Whether an address may be dialled.

    Args:
        address: in any written form that ``getaddrinfo`` gives.
        allow_private: whether addresses of this machine and of private networks are meant.
    """
    return all(_is_fit(each, allow_private) for each in _meanings(address))


def _is_fit(address: Address, allow_private: bool) -> bool:
    if address in _CREDENTIALS_OF_CLOUDS or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address.is_loopback or address.is_private:
        return allow_private and address not in ipaddress.IPv4Network("0.0.0.0/8")
    return address.is_global or allow_private


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


class CheckedNetwork(httpcore.NetworkBackend):
    """Opens connections to checked addresses only."""

    def __init__(
        self, *, allow_private: bool, network: httpcore.NetworkBackend | None = None, resolve: Resolve = resolved
    ) -> None:
        """Keep the policy.

        Args:
            allow_private: whether this machine and private networks may be reached.
            network: what dials an address.
            resolve: gives the addresses of a name.
        """
        # httpcore writes headers to its log at level DEBUG, signatures among them.
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        self._allow_private = allow_private
        self._network = network or httpcore.SyncBackend()
        self._resolve = resolve

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
                return self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Never: a URL cannot ask for it."""
        raise RefreshError("sockets of this machine are not dialled")

    def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = list(self._resolve(host, port))
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved ({type(error).__name__})") from None
        for address in addresses:
            if not is_dialled(address, allow_private=self._allow_private):
                raise RefreshError(
                    f"{host} has the address {address}, which is not dialled"
                    "\n  addresses of this machine and of private networks need 'allow_private: true' on the "
                    "connection; those where clouds hand out credentials are never dialled"
                )
        return addresses
