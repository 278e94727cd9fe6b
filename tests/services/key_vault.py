"""Plays Azure Key Vault and the places that give tokens for it, over TLS on loopback, for the real client library.

It answers as the service documents: the challenge of a request without a token, versions, paging, soft deletion,
disabled secrets, throttling. Host names are those of Azure; :func:`key_vault_store` has them resolve to loopback.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from platform_core.secrets.azure_key_vault import AzureKeyVaultSecrets

VAULT_HOST = "edp-test.vault.azure.net"
LOGIN_HOST = "login.edp.test"
TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
CLIENT_SECRET = "client-secret-canary-77aa"
ASSERTION = "assertion-canary-88bb"
_PAGE = 3

Answer = tuple[int, dict[str, Any], dict[str, str]]


@dataclass
class Version:
    """One value of a secret."""

    id: str
    value: str
    created: int
    tags: dict[str, str]
    content_type: str | None
    expires: int | None
    enabled: bool = True


@dataclass
class KeyVaultService:
    """The service's state, which a test may look at and change.

    Args:
        faults: answers that are given in turn before the service works again: status and headers.
        requests: method and path of every request for secrets, with whether it carried a token that counts.
        logins: how tokens were asked for.
    """

    certificate: Path
    port: int = 0
    secrets: dict[str, list[Version]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    forbidden: bool = False
    resource: str = "https://vault.azure.net"
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    requests: list[tuple[str, str, bool]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    delay: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Base URL of the Key Vault."""
        return f"https://{VAULT_HOST}:{self.port}"

    @property
    def authority(self) -> str:
        """Base URL of the place that gives tokens."""
        return f"https://{LOGIN_HOST}:{self.port}"

    def asked(self, name: str) -> int:
        """How often a value was asked for, with a token."""
        return sum(
            1 for method, path, known in self.requests if method == "GET" and known and path == f"/secrets/{name}/"
        )

    def secret(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> Answer:
        """What the Key Vault answers to a request with a token."""
        if self.faults:
            status, headers = self.faults.pop(0)
            return status, _error("Throttled" if status == 429 else "InternalError"), headers
        if self.forbidden:
            return 403, _error("Forbidden", inner="ForbiddenByRbac"), {}
        parts = [part for part in path.split("/") if part]
        if parts == ["secrets"]:
            return self._listed(query)
        name = parts[1].lower()
        if parts[2:] == ["versions"]:
            versions = [self._properties(name, version) for version in self.secrets.get(name, ())]
            return 200, {"value": versions, "nextLink": None}, {}
        if method == "PUT":
            return self._put(name, body)
        versions = self.secrets.get(name)
        if versions is None or name in self.deleted:
            return 404, _error("SecretNotFound"), {}
        if method == "DELETE":
            self.deleted.add(name)
            gone = {"recoveryId": f"{self.url}/deletedsecrets/{name}", "deletedDate": 1, "scheduledPurgeDate": 2}
            return 200, {**self._properties(name, versions[-1]), **gone}, {}
        if not versions[-1].enabled:
            return 403, _error("Forbidden", inner="SecretDisabled"), {}
        return 200, {"value": versions[-1].value, **self._properties(name, versions[-1])}, {}

    def put(self, name: str, value: str, **more: Any) -> Version:
        """Put a value as somebody does it in the portal."""
        version = Version(secrets.token_hex(16), value, int(time.time()), {}, None, None)
        for key, given in more.items():
            setattr(version, key, given)
        self.secrets.setdefault(name, []).append(version)
        return version

    def _put(self, name: str, body: dict[str, Any]) -> Answer:
        if name in self.deleted:
            return 409, _error("Conflict", inner="ObjectIsDeletedButRecoverable"), {}
        version = self.put(
            name,
            body["value"],
            tags=body.get("tags") or {},
            content_type=body.get("contentType"),
            expires=(body.get("attributes") or {}).get("exp"),
        )
        return 200, {"value": version.value, **self._properties(name, version)}, {}

    def _listed(self, query: dict[str, str]) -> Answer:
        names = sorted(name for name in self.secrets if name not in self.deleted)
        begin = int(query.get("$skiptoken", 0))
        more = f"{self.url}/secrets?api-version=7.6&$skiptoken={begin + _PAGE}" if begin + _PAGE < len(names) else None
        page = [self._properties(name, self.secrets[name][-1]) for name in names[begin : begin + _PAGE]]
        return 200, {"value": [{**found, "id": found["id"].rpartition("/")[0]} for found in page], "nextLink": more}, {}

    def _properties(self, name: str, version: Version) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "enabled": version.enabled,
            "created": version.created,
            "updated": version.created,
            "recoveryLevel": "Recoverable+Purgeable",
        }
        if version.expires is not None:
            attributes["exp"] = version.expires
        found: dict[str, Any] = {
            "id": f"{self.url}/secrets/{name}/{version.id}",
            "attributes": attributes,
            "tags": version.tags,
        }
        return found if version.content_type is None else {**found, "contentType": version.content_type}

    def login(self, path: str, form: dict[str, str], headers: Any) -> Answer:
        """What the place that gives tokens answers."""
        if path.endswith("/.well-known/openid-configuration"):
            base = f"{self.authority}/{TENANT}"
            return (
                200,
                {
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "issuer": f"{base}/v2.0",
                    "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                },
                {},
            )
        if path == "/msi/token":
            if headers.get("X-IDENTITY-HEADER") != "header-canary":
                return 401, {"error": "unauthorized"}, {}
            how = "managed_identity"
        elif form.get("client_secret") == CLIENT_SECRET:
            how = "client_secret"
        elif form.get("client_assertion") == ASSERTION:
            how = "workload_identity"
        else:
            return 401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret."}, {}
        self.logins.append(how)
        token = secrets.token_hex(16)
        self.tokens.add(token)
        until = str(int(time.time()) + 3600)
        answer = {"access_token": token, "expires_in": 3600, "expires_on": until, "token_type": "Bearer"}
        return 200, answer | {"resource": self.resource}, {}


@contextmanager
def running_key_vault(folder: Path) -> Iterator[KeyVaultService]:
    """The service for the block; its certificate lies in the folder."""
    service = KeyVaultService(_certificate(folder / "key_vault.pem"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(service))
    server.daemon_threads = True
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(service.certificate)
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    service.port = int(server.server_address[1])
    service.resource = f"https://vault.azure.net:{service.port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def key_vault_store(
    service: KeyVaultService, monkeypatch: pytest.MonkeyPatch, *, identity: str = "client_secret", **more: Any
) -> AzureKeyVaultSecrets:
    """A store over the service, as the platform makes it."""
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **named: Any) -> Any:
        return real("127.0.0.1" if host in (VAULT_HOST, LOGIN_HOST) else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(service.certificate))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    if identity == "client_secret":
        monkeypatch.setenv("AZURE_CLIENT_SECRET", CLIENT_SECRET)
    elif identity == "workload_identity":
        token_file = service.certificate.with_name("token")
        token_file.write_text(ASSERTION)
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token_file))
    else:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{service.authority}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "header-canary")
    clock = {"clock": more.pop("clock")} if "clock" in more else {}
    options = AzureKeyVaultSecrets.Options(url=service.url, authority=service.authority, identity=identity, **more)
    return AzureKeyVaultSecrets(options, **clock)


def _error(code: str, *, inner: str | None = None) -> dict[str, Any]:
    told: dict[str, Any] = {"code": code, "message": "text-of-the-service-canary"}
    return {"error": told if inner is None else {**told, "innererror": {"code": inner}}}


def _handler(service: KeyVaultService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with service.lock:
                status, answer, headers = self._answer(parts.path, parts.query, data)
            time.sleep(service.delay)
            body = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - names that the standard library calls

        def _answer(self, path: str, query: str, data: bytes) -> Answer:
            if not path.startswith(("/secrets", "/deletedsecrets")):
                return service.login(path, _flat(data.decode()), self.headers)
            known = self.headers.get("Authorization", "").removeprefix("Bearer ") in service.tokens
            service.requests.append((self.command, path, known))
            if not known:
                challenge = f'Bearer authorization="{service.authority}/{TENANT}", resource="{service.resource}"'
                return 401, _error("Unauthorized"), {"WWW-Authenticate": challenge}
            return service.secret(self.command, path, _flat(query), json.loads(data) if data else {})

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
                # A client that does not trust the certificate, or waits no longer, is gone.
                return

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests look at what was asked."""

    return Handler


def _flat(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}


def _certificate(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, VAULT_HOST)])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName(VAULT_HOST), x509.DNSName(LOGIN_HOST)]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path
