"""Starts Azurite, the emulator of Azure's blob storage, behind a proxy that lists and signs in as the service does."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.services.server_process import end_with_parent, free_port

ACCOUNT = "devstoreaccount1"
# Published with the emulator: it opens nothing else.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
START_SECONDS = 60
_PROJECT = Path(__file__).parents[2]
_MAIN = _PROJECT / ".edp/tools/azurite/node_modules/azurite/dist/src/blob/main.js"
_NODE = _PROJECT / ".venv/bin/node"
_IDENTITY = "/-identity"
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class AzuriteUnavailableError(RuntimeError):
    """Azurite is not installed, or did not start."""


@dataclass(frozen=True, kw_only=True)
class AzuriteServer:
    """A running emulator.

    Args:
        port: of the proxy, which filters listings by ``startFrom`` as the service does.
        emulator_port: of Azurite itself, which ignores that parameter.
        pid: process id of Azurite.
    """

    port: int
    emulator_port: int
    pid: int
    account: str = ACCOUNT
    key: str = field(default=KEY, repr=False)
    client_id: str = "test-client"
    client_secret: str = field(default="test-client-secret", repr=False)
    tenant_id: str = "test-tenant"

    @property
    def identity(self) -> str:
        """URL of the token service: of service principals below it, of managed identities at ``/msi``."""
        return f"http://127.0.0.1:{self.port}{_IDENTITY}"

    @property
    def endpoint(self) -> str:
        """URL of the account, through the proxy."""
        return f"http://127.0.0.1:{self.port}/{self.account}"

    @property
    def connection_string(self) -> str:
        """For Azure's own clients."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key};"
            f"BlobEndpoint={self.endpoint};"
        )

    @property
    def storage_options(self) -> dict[str, str]:
        """For delta-rs; give them to the lake."""
        return {
            "account_name": self.account,
            "account_key": self.key,
            "endpoint": self.endpoint,
            "allow_http": "true",
        }

    def create_container(self, name: str | None = None) -> str:
        """Create an empty container and return its name; without a name, a fresh one."""
        from azure.storage.blob import BlobServiceClient

        name = name or f"test-{uuid.uuid4().hex[:16]}"
        with BlobServiceClient.from_connection_string(self.connection_string) as client:
            client.create_container(name)
        return name


@contextmanager
def running_azurite() -> Iterator[AzuriteServer]:
    """Start the emulator with its data in a temporary folder; on exit end it and remove the folder.

    Raises:
        AzuriteUnavailableError: it is not installed, or did not come up.
    """
    if not _MAIN.is_file() or not _NODE.exists():
        raise AzuriteUnavailableError(f"Azurite is not installed: looked for {_MAIN}; run scripts/azurite")
    folder = Path(tempfile.mkdtemp(prefix="azurite-"))
    port = free_port()
    log = folder / "log"
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder / "data")]
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                [_NODE, _MAIN, *options, "--skipApiVersionCheck", "--disableTelemetry", "--silent"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),
            )
        try:
            _wait(process, port, log)
            with _listing_proxy(port) as front:
                yield AzuriteServer(port=front, emulator_port=port, pid=process.pid)
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as probe:
                probe.request("GET", f"/{ACCOUNT}?comp=list")
                probe.getresponse().read()
            return
        except OSError:
            time.sleep(0.1)
    raise AzuriteUnavailableError(f"Azurite did not start: {log.read_text()[-2000:]}")


@contextmanager
def _listing_proxy(upstream: int) -> Iterator[int]:
    """A proxy on loopback: the service leaves out of a listing what sorts before ``startFrom``; Azurite does not."""

    issued: set[str] = set()
    signature = _account_signature()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request_of_any_method(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self._chunks()
            if self.path.startswith(_IDENTITY):
                self._issue(body or b"")
                return
            path = self.path
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            kind, _, token = (self.headers.get("Authorization") or "").partition(" ")
            if kind == "Bearer":
                if token not in issued:
                    self._answer(401, b"")
                    return
                # The emulator knows tokens over TLS only; who shows one of ours gets a signature instead.
                del headers[next(name for name in headers if name.lower() == "authorization")]
                path += ("&" if "?" in path else "?") + signature
            if body is not None:
                headers["Content-Length"] = str(len(body))
            with closing(http.client.HTTPConnection("127.0.0.1", upstream, timeout=60)) as connection:
                connection.request(self.command, path, body=body, headers=headers)
                answer = connection.getresponse()
                content = answer.read()
            if answer.status == 200 and self.command == "GET":
                content = _listed_from(content, self.path)
            declared = answer.getheader("Content-Length")
            size = declared if self.command == "HEAD" else None
            self._answer(answer.status, content, headers=answer.getheaders(), size=size)

        def _issue(self, body: bytes) -> None:
            """Give a token to the service principal of the tests, or to whoever asks as a managed identity does."""
            form = parse_qs(body.decode())
            principal = (form.get("client_id"), form.get("client_secret")) == (
                [AzuriteServer.client_id],
                [AzuriteServer.client_secret],
            )
            managed = self.path.startswith(f"{_IDENTITY}/msi") and self.headers.get("Metadata") == "true"
            if not (principal or managed):
                self._answer(401, b'{"error": "invalid_client"}')
                return
            token = secrets.token_urlsafe(16)
            issued.add(token)
            expires = int(time.time()) + 3600
            answer = {"access_token": token, "token_type": "Bearer", "expires_in": 3600, "expires_on": str(expires)}
            self._answer(200, json.dumps(answer).encode(), headers=[("Content-Type", "application/json")])

        def _answer(
            self, status: int, content: bytes, *, headers: Sequence[tuple[str, str]] = (), size: str | None = None
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            if status not in (204, 304):
                self.send_header("Content-Length", size or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _chunks(self) -> bytes | None:
            if "chunked" not in (self.headers.get("Transfer-Encoding") or "").lower():
                return b"" if self.command in ("PUT", "POST") else None
            content = bytearray()
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: a test's output is its own."""

    for method in ("GET", "PUT", "POST", "HEAD", "DELETE", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.handle_request_of_any_method)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is no fault of the test."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="azurite-proxy", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _account_signature() -> str:
    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    return generate_account_sas(
        ACCOUNT,
        KEY,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions(
            read=True, write=True, delete=True, list=True, add=True, create=True, update=True
        ),
        expiry=dt.datetime.now(dt.UTC) + dt.timedelta(days=1),
    )


def _listed_from(content: bytes, path: str) -> bytes:
    query = parse_qs(urlsplit(path).query)
    if query.get("comp") != ["list"] or "startFrom" not in query:
        return content
    start = query["startFrom"][0]
    listing = ET.fromstring(content)
    for blobs in listing.iter("Blobs"):
        for blob in list(blobs):
            if (blob.findtext("Name") or "") < start:
                blobs.remove(blob)
    return ET.tostring(listing, encoding="utf-8", xml_declaration=True)
