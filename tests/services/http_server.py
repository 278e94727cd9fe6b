"""An HTTP server that misbehaves on purpose, in a thread of this process, on loopback."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Received:
    """One request, as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """One answer, right or wrong.

    Args:
        body: sent as it is; parts are sent one by one, in chunks unless a length is declared.
        declared: what Content-Length says, where it is not the truth.
        chunked: send parts as chunks; otherwise the end of the connection ends the body.
        pause: seconds before each part.
        cut: end the connection after the body, without its proper end.
    """

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    declared: int | None = None
    chunked: bool = True
    pause: float = 0.0
    cut: bool = False


def json_reply(value: Any, *, status: int = 200, **headers: str) -> Reply:
    """An answer that holds a JSON document; an underscore in a header's name stands for a hyphen."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **named})


Answering = Callable[[Received], Reply]


class HttpServer:
    """Answers as it was told to, path by path, and remembers what it was asked."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._answers: dict[str, Answering] = {}
        self._lock = threading.Lock()
        self.requests: list[Received] = []
        self.bytes_sent = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def on(self, path: str, *answers: Reply | Answering) -> None:
        """Answer a path: with the given answers in turn, the last one again and again."""
        waiting = list(answers)

        def answer(received: Received) -> Reply:
            with self._lock:
                chosen = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            return chosen if isinstance(chosen, Reply) else chosen(received)

        self._answers[path] = answer

    def asked(self, path: str) -> list[Received]:
        """The requests for one path."""
        with self._lock:
            return [received for received in self.requests if received.path == path]

    def answer(self, received: Received) -> Reply:
        """Remember a request and choose its answer; 404 where none was given."""
        with self._lock:
            self.requests.append(received)
            chosen = self._answers.get(received.path)
        return Reply(404) if chosen is None else chosen(received)

    def sent(self, count: int) -> None:
        """Count bytes of bodies."""
        with self._lock:
            self.bytes_sent += count

    def close(self) -> None:
        """Stop listening; connections that are open end with their client."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@contextmanager
def http_server(*, tls: ssl.SSLContext | None = None) -> Iterator[HttpServer]:
    """A server for the block, behind TLS where a context with a certificate is given."""
    server = HttpServer(tls=tls)
    try:
        yield server
    finally:
        server.close()


def _handler(server: HttpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            received = Received(self.command, parts.path, query, dict(self.headers.items()), body)
            try:
                self._send(server.answer(received))
            except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
                # The client has seen enough, which some tests are about.
                self.close_connection = True

        do_POST = do_GET  # noqa: N815 - the name that the standard library calls

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            length = reply.declared
            if length is None and isinstance(reply.body, bytes):
                length = len(reply.body)
            if length is not None:
                self.send_header("Content-Length", str(length))
            elif reply.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Connection", "close")
            self.end_headers()
            parts: Iterable[bytes] = [reply.body] if isinstance(reply.body, bytes) else reply.body
            for part in parts:
                time.sleep(reply.pause)
                framed = length is None and reply.chunked
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n" if framed else part)
                server.sent(len(part))
            if length is None and reply.chunked and not reply.cut:
                self.wfile.write(b"0\r\n\r\n")
            if reply.cut or (length is None and not reply.chunked):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionResetError, ssl.SSLError):
                # A client that does not trust the certificate is gone before it asks.
                return

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests look at what was asked."""

    return Handler
