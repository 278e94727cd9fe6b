"""Starts a real MariaDB on loopback and ends it by its process id; ``scripts/mariadb`` installs the binaries."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.services.server_process import data_parent, end_with_parent, free_port, unprivileged

START_SECONDS = 60
_ATTEMPTS = 5
_PLACES = ("/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/libexec")
_TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")


class MariaDBUnavailableError(RuntimeError):
    """No MariaDB binaries were found, or the server did not start."""


@dataclass(frozen=True, kw_only=True)
class MariaDBServer:
    """A running server; ``user`` may do everything.

    Args:
        pid: process id of the server.
        certificate: file of the self-signed certificate, for 127.0.0.1, with which it speaks TLS.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    pid: int
    certificate: Path

    def create_database(self, name: str | None = None) -> str:
        """Create an empty database and return its name; without a name, a fresh one."""
        name = name or f"test_{secrets.token_hex(8)}"
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
            raise ValueError(f"'{name}' is not a plain database name")
        self.execute(f"CREATE DATABASE {name}")
        return name

    def execute(self, *statements: str, database: str | None = None) -> None:
        """Run statements, each committed by itself."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    @contextmanager
    def connect(self, database: str | None = None) -> Iterator[Any]:
        """A DB-API connection that commits each statement."""
        import pymysql

        with closing(
            pymysql.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                database=database,
                charset="utf8mb4",
                autocommit=True,
                init_command="SET time_zone = '+00:00'",
            )
        ) as connection:
            yield connection


@contextmanager
def running_mariadb(*, settings: dict[str, str] | None = None) -> Iterator[MariaDBServer]:
    """Start a server in a temporary folder; on exit end it and remove the folder.

    Args:
        settings: further server settings, such as ``{"log-bin": "changes"}``.

    Raises:
        MariaDBUnavailableError: there are no binaries, or the server did not come up.
    """
    binary = _binary()
    folder = Path(tempfile.mkdtemp(prefix="mariadb-", dir=data_parent()))
    try:
        (folder / "data").mkdir()
        (folder / "tmp").mkdir()
        certificate = _certificate(folder)
        identity = unprivileged(folder, *folder.iterdir())
        password = secrets.token_urlsafe(18)
        _initialise(binary, folder, password, identity)
        process, port = _start(binary, folder, settings or {}, identity)
        try:
            yield MariaDBServer(
                host="127.0.0.1",
                port=port,
                user="tester",
                password=password,
                pid=process.pid,
                certificate=certificate,
            )
        finally:
            # At once and without a checkpoint: the data is thrown away.
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binary() -> Path:
    looked_in = os.pathsep.join([*_PLACES, *os.get_exec_path()])
    if found := shutil.which("mariadbd", path=looked_in):
        return Path(found)
    raise MariaDBUnavailableError(f"no mariadbd in {looked_in}; install it: ./scripts/mariadb")


def _common(folder: Path) -> list[str]:
    return [
        "--no-defaults",
        f"--datadir={folder / 'data'}",
        f"--tmpdir={folder / 'tmp'}",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=32M",
        "--skip-name-resolve",
    ]


def _initialise(binary: Path, folder: Path, password: str, identity: dict[str, Any]) -> None:
    """Make the system tables, as mariadb-install-db does, which needs a further package."""
    sources = [Path("/usr/share") / vendor / name for name in _TABLES for vendor in ("mysql", "mariadb")]
    script = "\n".join(
        [
            "CREATE DATABASE mysql;",
            "USE mysql;",
            "SET @auth_root_socket = NULL;",
            *(source.read_text() for source in sources if source.is_file()),
            "FLUSH PRIVILEGES;",
            f"CREATE USER tester@'%' IDENTIFIED BY '{password}';",
            "GRANT ALL ON *.* TO tester@'%' WITH GRANT OPTION;",
            f"ALTER USER root@localhost IDENTIFIED BY '{password}';",
        ]
    )
    done = subprocess.run(
        [binary, *_common(folder), "--bootstrap", "--skip-networking"],
        cwd=folder,
        input=script,
        capture_output=True,
        text=True,
        check=False,
        **identity,
    )
    if done.returncode:
        raise MariaDBUnavailableError(f"bootstrap failed with {done.returncode}: {done.stderr.strip()[-2000:]}")


def _start(
    binary: Path, folder: Path, settings: dict[str, str], identity: dict[str, Any]
) -> tuple[subprocess.Popen[bytes], int]:
    log = folder / "log"
    for _ in range(_ATTEMPTS):
        port = free_port()
        chosen = {
            "bind-address": "127.0.0.1",
            "port": str(port),
            "socket": str(folder / "socket"),
            "pid-file": str(folder / "pid"),
            "ssl-cert": str(folder / "certificate.pem"),
            "ssl-key": str(folder / "key.pem"),
            "character-set-server": "utf8mb4",
            **settings,
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                [binary, *_common(folder), *(f"--{name}={value}" for name, value in chosen.items())],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is meant for the tests; they end the server themselves.
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),
                **identity,
            )
        if _ready(process, log):
            return process, port
        process.kill()
        process.wait()
    raise MariaDBUnavailableError(f"MariaDB did not start in {_ATTEMPTS} attempts: {log.read_text()[-2000:]}")


def _ready(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait until the server says in its log that it is ready, or ends, as when the port was taken."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if b"ready for connections" in log.read_bytes():
            return True
        time.sleep(0.05)
    return False


def _certificate(folder: Path) -> Path:
    """Write a key and a self-signed certificate for 127.0.0.1; gives the certificate's file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return folder / "certificate.pem"
