"""Scenarios as folders: files of a project, a `script` of commands, and the output that is `expected`.

`pytest tests/scenarios/test_golden.py --update-golden` rewrites what is expected; the diff is then for a person to
judge. In a script, `edp` is the command line of the folder's project, `sqlite FILE` executes standard input in a
database of a source, and `control ENV "SQL"` one statement in the control database of an environment, as an
administrator would. Where an environment says `<control>`, that becomes the URL of the database: a file, and one of a
server; both must write the same. Run ids, times, sizes and the project's own path are replaced by placeholders.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from pathlib import Path

import pytest

from tests.scenarios.scripts import Script, settled
from tests.scenarios.workspaces import Workspace
from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden"
OF_THE_TEST = ("script", "expected")
CONTROL = "<control>"
AUTHOR = {"user.name": "Ann Example", "user.email": "ann@example.com"}
_SQLITE = """\
import sqlite3, sys
files = {databases}
statement = sys.argv[2].replace("control.", "")
with sqlite3.connect(files[sys.argv[1]]) as connection:
    connection.execute(statement)
"""
_POSTGRES = """\
import sys
import psycopg
dsns = {databases}
with psycopg.connect(dsns[sys.argv[1]], options="-c timezone=utc") as connection:
    connection.execute(sys.argv[2])
"""


def scenarios() -> list[object]:
    """Each folder; those that say where the control database is, on both kinds of it."""
    found: list[object] = []
    for folder in sorted(GOLDEN.iterdir()):
        kinds = ["sqlite"]
        if any(CONTROL in file.read_text() for file in folder.glob("dagster_home/environments/*.yaml")):
            kinds.append("postgresql")
        for kind in kinds:
            marks = [pytest.mark.services] if kind == "postgresql" else []
            found.append(pytest.param(folder, kind, marks=marks, id=f"{folder.name}-{kind}"))
    return found


@pytest.mark.parametrize(("folder", "kind"), scenarios())
def test_the_output_is_as_expected(folder: Path, kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("postgres_server") if kind == "postgresql" else None
    files = {
        str(file.relative_to(folder)): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and str(file.relative_to(folder)) not in OF_THE_TEST
    }
    script = project(tmp_path / "project", files, server)
    began = dt.datetime.now(dt.UTC)
    output = settled(script.play((folder / "script").read_text()), project=script.workspace.root, began=began)
    expected = folder / "expected"
    if request.config.getoption("--update-golden") and kind == "sqlite":
        expected.write_text(output)
    assert output == expected.read_text()


def project(root: Path, files: dict[str, str], server: PostgresServer | None) -> Script:
    """The project of a scenario under git, and a control database for each of its environments."""
    databases = {}
    for name, text in files.items():
        if CONTROL in text:
            environment = Path(name).stem
            if server is None:
                url, databases[environment] = f"sqlite:///{environment}.db", str(root / "state" / f"{environment}.db")
            else:
                database = server.create_database()
                url = f"postgresql+psycopg://{server.user}@{server.host}:{server.port}/{database}"
                databases[environment] = server.dsn(database)
            files[name] = text.replace(CONTROL, url)
    workspace = Workspace.create(root, files)
    workspace.write({".gitignore": "state/\n"})
    for arguments in (["init", "--quiet"], *(["config", *each] for each in AUTHOR.items()), ["add", "--all"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", "first"], cwd=root, check=True)
    body = (_SQLITE if server is None else _POSTGRES).format(databases=json.dumps(databases))
    # Which of the two it is must not show: so the password comes as it would from a password file.
    variables = {} if server is None else {"PGPASSWORD": server.password}
    return Script(workspace, variables=variables, commands={"control": body})
