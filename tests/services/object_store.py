"""An S3 server on loopback, in this process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

KEY_ID = "testing"
KEY = "testing-key-of-loopback"


@dataclass(frozen=True, kw_only=True)
class ObjectStore:
    """A running server.

    Args:
        endpoint: its URL.
    """

    endpoint: str

    @property
    def key(self) -> str:
        """The secret access key."""
        return KEY

    @property
    def storage_options(self) -> dict[str, Any]:
        """For s3fs, with the key itself."""
        return {"key": KEY_ID, "secret": KEY, "client_kwargs": {"endpoint_url": self.endpoint}}

    def client(self) -> Any:
        """A client of Amazon's own."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=KEY,
            region_name="us-east-1",
        )

    def create_bucket(self) -> str:
        """Name of a fresh, empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:16]}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """Start the server on a free port; it ends with the block."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield ObjectStore(endpoint=f"http://{host}:{port}")
    finally:
        server.stop()
