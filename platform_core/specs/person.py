"""Whose tables those of a personal environment are, and how they are kept apart from everybody else's.

In personal development mode several people work in one lake, one serving database and one control database. What a
person makes lies below a folder, or carries a prefix, that no workstream can have: names of workstreams begin with a
letter.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from platform_core.specs.table import TableRef

PEOPLE = "_people"
"""Folder of a lake that holds a folder for each person."""

ANYONES = "_"
"""How the name of a workstream begins that is some person's."""

LONGEST = 24
"""Most characters of a person's name here: it stands before names of schemas, which have an end."""

_PLAIN = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_OTHERS = re.compile(r"[^a-z0-9]+")
_DIGEST = 6
_NOBODY = frozenset(
    {
        "admin",
        "administrator",
        "airflow",
        "app",
        "build",
        "builder",
        "ci",
        "container",
        "dagster",
        "daemon",
        "default",
        "dev",
        "developer",
        "docker",
        "edp",
        "gitlab",
        "gitlab_runner",
        "guest",
        "jenkins",
        "jovyan",
        "nobody",
        "node",
        "nonroot",
        "postgres",
        "root",
        "runner",
        "service",
        "spark",
        "system",
        "test",
        "ubuntu",
        "user",
        "vagrant",
        "vscode",
        "www_data",
    }
)
"""Accounts that images and machines share: whoever is asked for a name there gets the same one as everybody else."""


@dataclass(frozen=True)
class Person:
    """Somebody who develops with tables of their own.

    Args:
        name: lower case letters, digits and single underscores; begins with a letter, never ends with an underscore.
    """

    name: str

    def __post_init__(self) -> None:
        if not _PLAIN.fullmatch(self.name) or len(self.name) > LONGEST:
            raise ValueError(f"'{self.name}' cannot stand in names of tables and schemas")

    def __str__(self) -> str:
        return self.name

    def root(self, lake: str) -> str:
        """Root folder or URL of the person's tables in a lake."""
        return f"{lake.rstrip('/')}/{PEOPLE}/{self.name}"

    def scoped(self, workstream: str) -> str:
        """The person's name of a workstream: of its schema in a serving database, and in the control database.

        Different people and workstreams never share one: a person's name has no double underscore.
        """
        return f"{self.prefix}{workstream}"

    @property
    def prefix(self) -> str:
        """What stands before the name of a workstream."""
        return f"{ANYONES}{self.name}__"

    def table(self, ref: TableRef) -> TableRef:
        """The person's name of a table where that of its workstream is :meth:`scoped`."""
        return ref._replace(workstream=self.scoped(ref.workstream))

    def plain(self, ref: TableRef) -> TableRef:
        """The table of which :meth:`table` gives this one."""
        return ref._replace(workstream=ref.workstream.removeprefix(self.prefix))


def person_of(account: str | None, *, stated: bool) -> Person | None:
    """The person behind an account; None where it tells nobody.

    An account whose name cannot stand in the name of a table is told apart from every other by a digest.

    Args:
        account: of the operating system, or as a person says it.
        stated: a person said it, so that a name that many machines have is meant.
    """
    said = (account or "").strip()
    plain = _OTHERS.sub("_", said.lower()).strip("_")
    if not plain or (not stated and plain in _NOBODY):
        return None
    if plain == said and len(plain) <= LONGEST and _PLAIN.fullmatch(plain):
        return Person(plain)
    digest = hashlib.sha256(said.encode()).hexdigest()[:_DIGEST]
    begin = plain if plain[0].isalpha() else f"u_{plain}"
    return Person(f"{begin[: LONGEST - _DIGEST - 1].rstrip('_')}_{digest}")
