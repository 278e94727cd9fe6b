"""Exit with a clear message if a port of this machine's loopback address is taken."""

from __future__ import annotations

import socket
import sys


def main(port: str) -> str | None:
    """Why the port cannot be used; None if it can."""
    if not port.isdigit() or not 0 < int(port) < 65536:
        return f"PORT={port} is not a port number"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except OSError as error:
            return f"port {port} cannot be used: {error.strerror}\n  choose another one: make ui PORT={int(port) + 1}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
