"""Tells how the files that match a pattern stand, by what the storage says of them or by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from platform_core.plugins.interfaces import Observation
from platform_core.sources.storage import Storage, StoredFile
from platform_core.specs.step_kinds import Compare

_CHUNK = 1 << 20


def observed(files: Sequence[StoredFile], storage: Storage, *, by: Compare, where: str) -> Observation:
    """One version of all files together; each that comes, goes or changes makes another one.

    Args:
        files: complete ones, in the order of their names.
        storage: that holds them.
        by: what makes a file another one.
        where: source and object, for messages.

    Raises:
        SourceError: a file cannot be read, or changed while it was.
    """
    whole = hashlib.sha256()
    for file in files:
        told = _content(file, storage, where) if by is Compare.CONTENT else f"{file.size} {file.stamp}"
        whole.update(f"{len(file.name)}:{file.name} {told}\n".encode())
    written = [file.modified for file in files if file.modified is not None]
    sizes = [file.size for file in files if file.size is not None]
    return Observation(
        version=whole.hexdigest(),
        changed_at=max(written) if len(written) == len(files) else None,
        figures={"files": len(files), **({"bytes": sum(sizes)} if len(sizes) == len(files) else {})},
    )


def _content(file: StoredFile, storage: Storage, where: str) -> str:
    digest = hashlib.sha256()
    with storage.open(file, where=where) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    storage.check_unchanged(file, where=where)
    return digest.hexdigest()
