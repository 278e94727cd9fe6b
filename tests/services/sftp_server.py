"""An SFTP server on loopback, in a thread of this process, for one folder and one user."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

USER = "tester"
PASSWORD = "pass-of-loopback"


@dataclass(frozen=True, kw_only=True)
class SftpServer:
    """A running server.

    Args:
        folder: what its users see as ``/``.
        known_hosts: the line by which clients know it.
        client_key: private key that opens it as well, in PEM.
    """

    port: int
    folder: Path
    known_hosts: str
    client_key: str = field(repr=False)

    @property
    def root(self) -> str:
        """URL of the folder, without a password."""
        return f"sftp://{USER}@127.0.0.1:{self.port}/"

    @property
    def password(self) -> str:
        """Of the one user."""
        return PASSWORD

    @property
    def storage_options(self) -> dict[str, Any]:
        """For the source, with the password itself."""
        return {"password": PASSWORD, "known_hosts": self.known_hosts, "client_keys": [], "agent_path": None}


@contextmanager
def running_sftp_server(folder: Path) -> Iterator[SftpServer]:
    """Start the server on a free port; it ends with the block."""
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    client_key = asyncssh.generate_private_key("ssh-ed25519")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="sftp-server", daemon=True)
    thread.start()

    connections: list[asyncssh.SSHServerConnection] = []

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            connections.append(conn)

        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    def served(channel: asyncssh.SSHServerChannel) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=str(folder).encode())

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(
            Server,
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(client_key.export_public_key().decode()),
            sftp_factory=served,
        )

    async def stop(acceptor: asyncssh.SSHAcceptor) -> None:
        acceptor.close()
        for connection in connections:
            connection.abort()
            await connection.wait_closed()
        await acceptor.wait_closed()

    acceptor = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        port = acceptor.get_port()
        public = host_key.export_public_key().decode().strip()
        yield SftpServer(
            port=port,
            folder=folder,
            known_hosts=f"[127.0.0.1]:{port} {public}\n",
            client_key=client_key.export_private_key().decode(),
        )
    finally:
        asyncio.run_coroutine_threadsafe(stop(acceptor), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
