"""The source rest reaches the declared hosts and nothing else (FAULTS E8)."""

from __future__ import annotations

import datetime as dt
import json
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from platform_core.errors import SourceError
from platform_core.plugins.checked_network import why_refused
from platform_core.plugins.testing import no_secrets
from platform_core.sources.rest import RestSource
from platform_core.sources.rest_client import Service
from platform_core.sources.rest_guard import AllowedHosts, GuardedNetwork, origin_of
from tests.services.http_server import HttpServer, Reply, http_server, json_reply
from tests.sources.rest_service import IDS, TOKEN, failure_of, request, rest, rows_of


class TestHosts:
    """FAULTS E8: nothing but the declared hosts is reached, whatever a service answers."""

    @pytest.mark.parametrize(
        "address",
        [
            *("127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "0.1.2.3"),
            *("169.254.1.1", "169.254.169.254", "168.63.129.16", "100.100.100.200", "224.0.0.1", "255.255.255.255"),
            *(
                "::1",
                "::",
                "fe80::1%eth0",
                "fc00::1",
                "fd00:ec2::254",
                "ff02::1",
                "::ffff:127.0.0.1",
                "::ffff:a9fe:a9fe",
            ),
            *("64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
        ],
    )
    def test_e8_addresses_inside_are_refused(self, address: str) -> None:
        assert why_refused(address, allow_private=False)

    @pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
    def test_e8_public_addresses_are_not(self, address: str) -> None:
        assert why_refused(address, allow_private=False) is None

    @pytest.mark.parametrize(
        ("address", "refused"),
        [
            ("127.0.0.1", False),
            ("10.1.2.3", False),
            ("::ffff:127.0.0.1", False),
            ("169.254.169.254", True),
            ("::ffff:169.254.169.254", True),
            ("168.63.129.16", True),
            ("100.100.100.200", True),
            ("fd00:ec2::254", True),
            ("fe80::1", True),
            ("0.0.0.0", True),
            ("224.0.0.1", True),
        ],
    )
    def test_e8_private_networks_can_be_allowed_and_metadata_services_cannot(self, address: str, refused: bool) -> None:
        assert (why_refused(address, allow_private=True) is not None) == refused

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "017700000001", "127.1", "[::1]", "[::ffff:127.0.0.1]"],
    )
    def test_e8_no_form_of_an_address_reaches_this_machine(self, canary: HttpServer, host: str) -> None:
        source = rest(canary, base_url=f"http://{host}:{canary.port}", allow_private=False, retries=0)
        assert "items" in failure_of(source, options=IDS)
        assert canary.requests == []

    @pytest.mark.parametrize(
        "target",
        [
            "http://localhost:{port}/",
            "http://2130706433:{port}/",
            "http://0x7f000001:{port}/",
            "http://[::ffff:127.0.0.1]:{port}/",
            "http://127.0.0.1:{port}/",
            "//127.0.0.1:{port}/",
            "http://user@127.0.0.1:{own}/x@127.0.0.1:{port}/",
            "http://127.0.0.1:{own}@127.0.0.1:{port}/",
            "http://127.0.0.1:{own}\\@127.0.0.1:{port}/",
            "http://169.254.169.254/latest/meta-data/",
            "file:///etc/passwd",
            "ftp://127.0.0.1:{port}/",
            "gopher://127.0.0.1:{port}/",
        ],
    )
    @pytest.mark.parametrize("way", ["redirect", "link", "next_url"])
    def test_e8_no_answer_leads_elsewhere(self, server: HttpServer, canary: HttpServer, target: str, way: str) -> None:
        url = target.format(port=canary.port, own=server.port)
        options: dict[str, Any] = {**IDS, "records_at": "/d"}
        if way == "redirect":
            server.on("/items", Reply(302, headers={"Location": url}))
        elif way == "link":
            options["paging"] = {"style": "link"}
            server.on("/items", json_reply({"d": [{"id": 1}]}, Link=f"<{url}>; rel=next"))
        else:
            options["paging"] = {"style": "next_url", "at": "/next"}
            server.on("/items", json_reply({"d": [{"id": 1}], "next": url}))
        failure_of(rest(server, retries=0), options=options)
        assert canary.requests == []
        assert len(server.requests) == 1

    def test_e8_credentials_do_not_follow_to_another_declared_host(self, server: HttpServer) -> None:
        with http_server() as other:
            server.on("/items", json_reply({"d": [{"id": 1}], "next": f"{other.url}/two"}))
            other.on("/two", Reply(307, headers={"Location": f"{other.url}/three"}))
            other.on("/three", json_reply({"d": [{"id": 2}]}))
            source = rest(
                server,
                allowed_hosts=[f"127.0.0.1:{other.port}"],
                auth={"type": "bearer", "token": {"secret": "crm/token"}},
                headers={"X-Tenant": {"secret": "crm/tenant"}},
            )
            options = {**IDS, "records_at": "/d", "paging": {"style": "next_url", "at": "/next"}}
            assert rows_of(source, options=options) == [{"id": 1}, {"id": 2}]
            assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
            assert len(other.requests) == 2
            assert TOKEN not in repr(other.requests)

    def test_e8_a_redirect_on_the_same_host_is_followed_with_credentials(self, server: HttpServer) -> None:
        server.on("/items", Reply(301, headers={"Location": "/moved?x=1"}))
        server.on("/moved", json_reply([{"id": 1}]))
        auth = {"type": "bearer", "token": {"secret": "crm/token"}}
        assert rows_of(rest(server, auth=auth), options=IDS) == [{"id": 1}]
        assert server.asked("/moved")[0].headers["Authorization"] == f"Bearer {TOKEN}"

    def test_e8_endless_redirects_end(self, server: HttpServer) -> None:
        server.on("/items", Reply(302, headers={"Location": "/items"}))
        assert "redirects in a row" in failure_of(rest(server), options=IDS)
        assert len(server.requests) == 6

    def test_e8_a_link_may_not_lead_from_https_to_http(self) -> None:
        hosts = AllowedHosts("https://api.example.com/v1", hosts=["api.example.com:80"])
        assert str(hosts.check("https://API.example.com./x", where="w", what="l")) == "https://api.example.com"
        with pytest.raises(SourceError, match="from https to http"):
            hosts.check("http://api.example.com/x", where="w", what="l")

    def test_e8_what_was_checked_is_what_is_dialled(self) -> None:
        dialled = Dialled()
        answers = iter([["93.184.215.14"], ["127.0.0.1"]])
        network = GuardedNetwork(
            allow_private=False, where="w", network=dialled, resolve=lambda host, port: next(answers)
        )
        network.connect_tcp("api.example.com", 443)
        assert dialled.hosts == ["93.184.215.14"]
        with pytest.raises(SourceError, match="this machine"):
            network.connect_tcp("api.example.com", 443)
        assert dialled.hosts == ["93.184.215.14"]

    def test_e8_one_bad_address_among_good_ones_is_refused(self) -> None:
        dialled = Dialled()
        network = GuardedNetwork(
            allow_private=False, where="w", network=dialled, resolve=lambda host, port: ["93.184.215.14", "10.0.0.1"]
        )
        with pytest.raises(SourceError, match="private"):
            network.connect_tcp("api.example.com", 443)
        assert dialled.hosts == []

    def test_e8_rebinding_between_two_pages_reaches_nothing(self, canary: HttpServer) -> None:
        dialled = Dialled(httpcore.SyncBackend(), canary.port)
        seen: list[str] = []

        def resolve(host: str, port: int) -> list[str]:
            seen.append(host)
            return ["93.184.215.14"] if len(seen) == 1 else ["127.0.0.1"]

        options = RestSource.Options(base_url=f"http://api.example.com:{canary.port}", retries=0)
        service = Service(options, secret=no_secrets, network=dialled, resolve=resolve)
        for _ in range(2):
            with closing(service.client(where="w")) as client, pytest.raises(SourceError):
                client.get(f"{options.base_url}/", limit=1 << 20, what="x", read=lambda answer: answer)
        assert seen == ["api.example.com"] * 2
        assert canary.requests == []

    @pytest.mark.parametrize(
        "wrong",
        [
            {"base_url": "file:///etc/passwd"},
            {"base_url": "http://user:secret@example.com"},
            {"base_url": "https://example.com/?key=1"},
            {"base_url": "example.com"},
            {"base_url": "https://example.com", "allowed_hosts": ["*.example.com"]},
            {"base_url": "https://example.com", "allowed_hosts": ["https://x"]},
            {"base_url": "https://example.com", "headers": {"Host": "x"}},
            {"base_url": "https://example.com", "headers": {"X\r\nY": "x"}},
            {"base_url": "https://example.com", "auth": {"type": "bearer", "token": "in clear"}},
        ],
    )
    def test_what_is_wrong_in_a_connection_is_refused_when_declared(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            RestSource.Options(**wrong)

    @pytest.mark.parametrize(
        "path", ["../admin", "a/../b", "a?x=1", "a#b", "%2e%2e/a", "", "/", "a//b", "\\\\host\\x", "a\nb", "./a"]
    )
    def test_a_path_cannot_leave_the_base_url(self, server: HttpServer, path: str) -> None:
        with closing(rest(server)) as source, pytest.raises(SourceError, match="below the connection's base URL"):
            source.read(request(path, options=IDS))
        assert server.requests == []

    @pytest.mark.parametrize(
        "url", ["http://a b/", "http://\\x/", "http:///x", "mailto:x", "http://a:99999/", "http://0177.0.0.1/"]
    )
    def test_what_is_no_url_has_no_origin(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"URL|host|http|port"):
            origin_of(url)


class TestTls:
    """The checked address is dialled; the certificate is the name's."""

    NAME = "api.example.test"

    @pytest.fixture
    def secured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(tmp_path / "own.pem", self.NAME))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
        with http_server(tls=context) as server:
            server.on("/items", json_reply([{"id": 1}]))
            yield server

    def asked(self, server: HttpServer, name: str) -> Any:
        options = RestSource.Options(base_url=f"https://{name}:{server.port}", allow_private=True, retries=0)
        service = Service(options, secret=no_secrets, resolve=lambda host, port: ["127.0.0.1"])
        with closing(service.client(where="w")) as client:
            url = f"{options.base_url}/items"
            return client.get(url, limit=1 << 20, what="x", read=lambda answer: json.loads(answer.body))

    def test_a_certificate_of_the_name_is_taken(self, secured: HttpServer) -> None:
        assert self.asked(secured, self.NAME) == [{"id": 1}]
        assert secured.requests[0].headers["Host"] == f"{self.NAME}:{secured.port}"

    def test_a_certificate_of_another_name_is_refused(self, secured: HttpServer) -> None:
        with pytest.raises(SourceError, match="cannot be reached"):
            self.asked(secured, "other.example.test")
        assert secured.requests == []

    def test_a_certificate_that_nobody_vouches_for_is_refused(
        self, secured: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate(tmp_path / "another.pem", self.NAME)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "another.pem"))
        with pytest.raises(SourceError, match="cannot be reached"):
            self.asked(secured, self.NAME)
        assert secured.requests == []


def certificate(path: Path, name: str) -> Path:
    """A certificate that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


class Dialled(httpcore.NetworkBackend):
    """Remembers whom it was asked to dial; dials them only where a real network is given, and never the canary."""

    def __init__(self, network: httpcore.NetworkBackend | None = None, canary: int = 0) -> None:
        self.hosts: list[str] = []
        self._network = network
        self._canary = canary

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        self.hosts.append(host)
        if self._network is not None and host == "127.0.0.1":
            return self._network.connect_tcp(host, self._canary, timeout)
        if self._network is not None:
            raise httpcore.ConnectError("there is no such network here")
        return httpcore.MockStream([])
