"""Puts a finished file where readers find it: they see the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from platform_core.errors import RefreshError, redacted


def publish(content: bytes, *, folder: str, name: str, storage_options: Mapping[str, str]) -> str:
    """Write one file, in place of an earlier one of that name.

    Args:
        content: the whole file.
        folder: local folder or URL; made where it does not exist.
        name: of the file.
        storage_options: for the object store of a URL.

    Returns:
        The URL of the file.

    Raises:
        RefreshError: the folder or store refused; what was there before is untouched.
    """
    parts = urlsplit(folder)
    if parts.scheme in ("", "file") or len(parts.scheme) == 1:
        return _publish_local(content, Path(unquote(parts.path) if parts.scheme == "file" else folder), name)
    return put(content, folder=folder, name=name, storage_options=storage_options)


def _publish_local(content: bytes, folder: Path, name: str) -> str:
    target = folder.resolve() / name
    temporary = target.with_name(f".{name}.{secrets.token_hex(6)}.tmp")
    failure = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        failure = error.strerror or type(error).__name__
    if failure:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RefreshError(
            f"{target}: cannot be written: {failure}\n  check that the folder is writable and the disk has room"
        )
    return target.as_uri()


def put(content: bytes, *, folder: str, name: str, storage_options: Mapping[str, str]) -> str:
    """Write one object; a store shows it only once it is complete.

    The store is reached by the same client and options as the Delta tables beside it.
    """
    import pyarrow.fs
    from deltalake.fs import DeltaStorageHandler

    url = f"{folder.rstrip('/')}/{name}"
    failure = ""
    try:
        store = pyarrow.fs.PyFileSystem(DeltaStorageHandler(folder, dict(storage_options)))
        # A buffer that holds it all: delta-rs takes bytes, which is what a buffer passes on, but no Arrow buffers.
        stream = store.open_output_stream(name, buffer_size=len(content) + 1)
        stream.write(content)
        # Not in a `finally`: closing is what completes the object.
        stream.close()
    except Exception as error:  # noqa: BLE001 - each store has errors of its own, whose texts can hold credentials
        failure = redacted(error)
    if failure:
        raise RefreshError(f"{url}: the store refused to write it: {failure}\n  check its address and credentials")
    return url
