"""Says which database a control URL means, and refuses one that carries a password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

_FILE = "sqlite:///"
_POSTGRES = ("postgresql+psycopg", "postgresql")
_EXAMPLES = "sqlite:///control.db or postgresql+psycopg://<user>@<host>/<database>"
_SECRET_OPTIONS = frozenset({"password", "passfile", "sslpassword"})


@dataclass(frozen=True, kw_only=True)
class DatabaseUrl:
    """Where a control database is.

    Args:
        file: of SQLite; None: it is PostgreSQL, to which the others belong.
        options: further parameters of the connection, such as ``sslmode``.
    """

    file: Path | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    database: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """What a person calls it."""
        if self.file is not None:
            return f"SQLite file {self.file}"
        port = f":{self.port}" if self.port else ""
        return f"PostgreSQL database {self.database} on {self.host or 'its socket'}{port}"


def file_url(file: Path) -> str:
    """The URL of a SQLite file."""
    return f"{_FILE}{file}"


def parse_url(text: str, *, state: Path) -> DatabaseUrl:
    """Read the URL of a control database.

    Args:
        text: as in the environment file.
        state: folder that a relative SQLite file counts from.

    Raises:
        ValueError: it means no database that can be used, or holds a password; the URL is not in the message.
    """
    if text.startswith("sqlite:"):
        return _file(text, state=state)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"is no URL of a database; an example: {_EXAMPLES}") from None
    if parts.scheme not in _POSTGRES:
        raise ValueError(f"must begin with sqlite:/// or postgresql+psycopg://, for example {_EXAMPLES}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.password is not None or _SECRET_OPTIONS & options.keys():
        raise ValueError("holds a password: keep it in the secret store and name it in 'password: {secret: <name>}'")
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database:
        raise ValueError("must name a database: postgresql+psycopg://<user>@<host>/<database>")
    return DatabaseUrl(
        host=parts.hostname,
        port=port,
        user=unquote(parts.username) if parts.username else None,
        database=database,
        options=options,
    )


def _file(text: str, *, state: Path) -> DatabaseUrl:
    # The path is taken as it stands: it may hold any character that has a meaning in other URLs.
    path = text.removeprefix(_FILE) if text.startswith(_FILE) else ""
    if path in ("", ":memory:"):
        raise ValueError("must name a file: sqlite:///control.db (of the state folder) or sqlite:////<path>")
    return DatabaseUrl(file=state / path)
