"""A proxy before Azurite that lists from ``startFrom`` and signs in by tokens, as Azure does and Azurite does not.

``python azurite_proxy.py <port of Azurite>`` prints the port it listens on.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import secrets
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ACCOUNT = "devstoreaccount1"
# Published with the emulator: it opens nothing else.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CLIENT_ID = "test-client"
CLIENT_SECRET = "test-client-secret"
IDENTITY = "/-identity"
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


def proxy(upstream: int) -> ThreadingHTTPServer:
    """The server, listening on a free port of loopback.

    Args:
        upstream: port of Azurite.
    """
    issued: set[str] = set()
    signature = _account_signature()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet: else each answer waits for the client's delayed acknowledgement.
        disable_nagle_algorithm = True
        wbufsize = -1

        _upstream: http.client.HTTPConnection | None = None
        _used = 0.0

        def handle_request_of_any_method(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self._chunks()
            if self.path.startswith(IDENTITY):
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
            connection = self._connection()
            connection.request(self.command, path, body=body, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            self._used = time.monotonic()
            if answer.status == 200 and self.command == "GET":
                content = _listed_from(content, self.path)
            declared = answer.getheader("Content-Length")
            size = declared if self.command == "HEAD" else None
            self._answer(answer.status, content, headers=answer.getheaders(), size=size)

        def _connection(self) -> http.client.HTTPConnection:
            """The one of this client; a new one where Azurite may have closed it, which it does after five seconds."""
            if self._upstream is None or time.monotonic() > self._used + 2:
                self.end_upstream()
                self._upstream = http.client.HTTPConnection("127.0.0.1", upstream, timeout=60)
            return self._upstream

        def end_upstream(self) -> None:
            if self._upstream is not None:
                self._upstream.close()

        def finish(self) -> None:
            self.end_upstream()
            super().finish()

        def _issue(self, body: bytes) -> None:
            """Give a token to the service principal of the tests, or to whoever asks as a managed identity does."""
            form = parse_qs(body.decode())
            principal = (form.get("client_id"), form.get("client_secret")) == (
                [CLIENT_ID],
                [CLIENT_SECRET],
            )
            managed = self.path.startswith(f"{IDENTITY}/msi") and self.headers.get("Metadata") == "true"
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

    return Server(("127.0.0.1", 0), Handler)


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


if __name__ == "__main__":
    server = proxy(int(sys.argv[1]))
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
