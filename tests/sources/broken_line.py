"""A line to a server that breaks on purpose, after as many bytes of the server's as a test says."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Break = Literal["reset", "end", "silence"]


@dataclass
class Line:
    """A port of this machine behind which the server is.

    Args:
        breaks: how the line breaks: connections are reset, end as if the server had closed them, or fall silent.
        after: bytes of the server's that pass before; None: it does not break.
        connections: that were made so far.
    """

    server: tuple[str, int]
    breaks: Break = "reset"
    after: int | None = None
    passed: int = 0
    port: int = 0
    connections: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def connect(self, client: socket.socket) -> None:
        """Put a client through."""
        server = socket.create_connection(self.server)
        self.connections += 1
        self._sockets += [client, server]
        threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
        threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def close(self) -> None:
        """End everything."""
        self._over.set()
        for end in self._sockets:
            end.close()

    def _pass(self, given: socket.socket, taken: socket.socket, from_server: bool) -> None:
        with suppress(OSError):
            while data := given.recv(16_384):
                part = self._allowed(data) if from_server else data
                taken.sendall(part)
                if len(part) < len(data):
                    self._break(given, taken)
                    return
        for end in (given, taken):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        # Each direction closes the end that it reads from; by now nobody waits for it.
        given.close()

    def _allowed(self, data: bytes) -> bytes:
        with self._lock:
            room = len(data) if self.after is None else max(0, self.after - self.passed)
            self.passed += len(data[:room])
            return data[:room]

    def _break(self, server: socket.socket, client: socket.socket) -> None:
        if self.breaks == "silence":
            self._over.wait()
            return
        if self.breaks == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Wakes the other direction: as long as it waits for the socket, closing that says nothing to the client.
            client.shutdown(socket.SHUT_RD)
            client.close()
        else:
            client.shutdown(socket.SHUT_RDWR)
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def line_to(host: str, port: int) -> Iterator[Line]:
    """A line that is whole until a test sets ``after``."""
    line = Line((host, port))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        line.port = listening.getsockname()[1]

        def accept() -> None:
            with suppress(OSError):
                while True:
                    line.connect(listening.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield line
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            line.close()
