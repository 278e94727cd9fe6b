"""The pointer of a location: which snapshot is the current one, and which were before."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated

from pydantic import Field, ValidationError

from platform_core.control.snapshot.content import FORMAT
from platform_core.errors import SnapshotError
from platform_core.specs.base import Model, Name

POINTER = "pointer.json"
"""Name of the file in the folder of a location."""


class NewerPointerError(SnapshotError):
    """A newer version of the platform wrote it, and what that means only that version knows."""


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256, which is also the name of a file: nothing else may come through."""


class Former(Model):
    """A snapshot that was the current one.

    Args:
        until: UTC, when another took its place.
    """

    content: Digest
    serial: int
    until: dt.datetime


class Pointer(Model):
    """Which file a code location loads.

    Args:
        format: of this file and of the content.
        serial: of the apply that the control tables stood at.
        mark: of that state.
        content: digest of the file; None: the location is not among those that are applied any more.
        published_at: UTC.
        former: newest first; their files stay for those who still read them.
    """

    format: int = FORMAT
    environment: Name
    location: Name
    serial: int
    mark: str
    git_commit: str | None = None
    content: Digest | None
    release: str
    published_at: dt.datetime
    former: tuple[Former, ...] = ()

    def file(self) -> str:
        """Path of the content below the folder of all locations; only where there is one."""
        return content_file(self.location, str(self.content))

    def as_json(self) -> bytes:
        """The pointer's file."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def pointer_file(location: str) -> str:
    """Path of a pointer below the folder of all locations."""
    return f"{location}/{POINTER}"


def content_file(location: str, digest: str) -> str:
    """Path of a snapshot below the folder of all locations."""
    return f"{location}/{digest}.json"


def read_pointer(content: bytes, *, environment: str, location: str, where: str) -> Pointer:
    """The pointer that a file holds.

    Args:
        where: what a person calls the file.

    Raises:
        NewerPointerError: a newer version wrote it.
        SnapshotError: it is torn, or is another location's or environment's.
    """
    repair = f"publish it again: edp publish --env {environment}"
    try:
        document = json.loads(content)
    except ValueError:
        raise SnapshotError(f"{where}: the pointer is torn: it is no JSON\n  {repair}") from None
    format_ = document.get("format") if isinstance(document, dict) else None
    if isinstance(format_, int) and format_ > FORMAT:
        raise NewerPointerError(
            f"{where}: the pointer has format {format_}; this version of the platform reads {FORMAT}\n"
            f"  written by release {str(document.get('release', '?'))[:40]}; run that release, or a newer one"
        )
    try:
        pointer = Pointer.model_validate(document)
    except ValidationError as error:
        wrong = ", ".join(sorted({".".join(map(str, each["loc"])) or "the file" for each in error.errors()}))
        raise SnapshotError(f"{where}: this is no pointer to a snapshot: wrong {wrong}\n  {repair}") from None
    for what, found, wanted in (
        ("environment", pointer.environment, environment),
        ("location", pointer.location, location),
    ):
        if found != wanted:
            raise SnapshotError(
                f"{where}: the pointer is of {what} '{found}', this is '{wanted}'\n"
                "  look at lake.root and control.snapshots of the environment's file: each environment needs its own"
            )
    return pointer
