"""Mistakes a new user makes, each answered by one clear message: where, what, what was looked at, what to do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.scenarios.workspaces import Ran, Workspace

pytestmark = pytest.mark.slow

PERSONAL = "ann.secret"
"""Part of values in rows; no message may hold it."""

FILES = {
    "shop/control/location.yaml": "location: shop\nworkstreams:\n  - {name: shop, owners: ['team:shop']}\n",
    "shop/control/connections.yaml": """\
        connections:
          - {name: till, type: sqlite, path: '${env.state}/till.db'}
          - {name: lost, type: sqlite, path: '${env.state}/lost.db'}
          - {name: text, type: sqlite, path: '${env.state}/text.db'}
          - {name: drop, type: files, root: '${env.state}/drop'}
          - {name: erp, type: postgres, host: localhost, database: erp, user: me, password: {secret: shop/erp}}
        """,
    "shop/control/ingestion/till.yaml": """\
        source: till
        tables:
          - {object: sales, mode: full, key: [id]}
          - {object: sale, table: no_table, mode: full, key: [id]}
          - {object: sales, table: no_key, mode: full, key: [sale_id]}
          - {object: sales, table: no_masked, mode: full, key: [id], columns: {mail: {mask: full}}}
          - {object: sales, table: no_cursor, mode: incremental, key: [id], cursor: changed_at}
          - {object: sales, table: twice, mode: full, key: [shop]}
          - {object: sales, table: hashed, mode: full, key: [id], columns: {email: {mask: hash, domain: email}}}
        """,
    "shop/control/ingestion/lost.yaml": "source: lost\ntables: [{object: a, table: no_database, mode: append}]\n",
    "shop/control/ingestion/text.yaml": "source: text\ntables: [{object: a, table: no_sqlite, mode: append}]\n",
    "shop/control/ingestion/erp.yaml": "source: erp\ntables: [{object: a.b, table: no_secret, mode: append}]\n",
    "shop/control/ingestion/drop.yaml": """\
        source: drop
        tables:
          - {object: none.csv, table: no_file, mode: full, key: [id]}
          - {object: empty.csv, table: no_header, mode: full, key: [id]}
          - {object: ragged.csv, table: ragged, mode: full, key: [id]}
          - {object: cut.jsonl, table: cut, mode: full, key: [id]}
        """,
    "shop/control/processing.yaml": """\
        steps:
          - {name: raises, layer: silver, kind: python, function: 'shop.steps:raises', depends_on: [bronze.sales]}
          - {name: number, layer: silver, kind: python, function: 'shop.steps:number', depends_on: [bronze.sales]}
          - {name: stranger, layer: silver, kind: python, function: 'shop.steps:stranger', depends_on: [bronze.sales]}
          - {name: misspelt, layer: silver, kind: sql, sql: sql/misspelt.sql}
          - {name: converts, layer: silver, kind: sql, sql: sql/converts.sql}
          - {name: good, layer: gold, kind: sql, sql: sql/good.sql}
        """,
    "shop/sql/misspelt.sql": "select id,\n       amuont\nfrom bronze.sales\n",
    "shop/sql/converts.sql": "select id,\n       cast(email as integer) as number\nfrom bronze.sales\n",
    "shop/sql/good.sql": "select id, amount from bronze.sales where _is_current\n",
    "shop/steps.py": f"""\
        def raises(context):
            raise ValueError("cannot take '{PERSONAL}@example.com'")


        def number(context):
            return 42


        def stranger(context):
            return context.changed_rows("bronze.customers").read_all()
        """,
    "shop/control/refresh.yaml": """\
        dashboards:
          - {name: good, type: page, title: Good, shows: [gold.good], tables: [{title: All, table: gold.good}]}
          - name: misspelt
            type: page
            title: Bad
            shows: [gold.good]
            charts: [{title: Sales, table: gold.good, mark: bar, x: id, y: amuont}]
        """,
    "state/text.db": "some text\n" * 100,
    "state/drop/empty.csv": "",
    "state/drop/ragged.csv": f"id,name\n1,Ann\n2,Bob,{PERSONAL}@example.com\n",
    "state/drop/cut.jsonl": f'{{"id": 1}}\n{{"id": 2, "email": "{PERSONAL}@exam\n',
}

MESSAGES = {
    "shop.bronze.no_table": """\
        sqlite table 'sale': there is no such table or view in <state>/till.db
          known tables: sales
          did you mean 'sales'?""",
    "shop.bronze.no_key": """\
        shop.bronze.no_key: sales has no column sale_id
          columns: id, shop, amount, email
          declared at <root>/shop/control/ingestion/till.yaml:5""",
    "shop.bronze.no_masked": """\
        shop.bronze.no_masked: sales has no column mail
          columns: id, shop, amount, email
          did you mean 'email'?
          declared at <root>/shop/control/ingestion/till.yaml:6""",
    "shop.bronze.no_cursor": """\
        shop.bronze.no_cursor: sales has no column changed_at
          columns: id, shop, amount, email
          declared at <root>/shop/control/ingestion/till.yaml:7""",
    "shop.bronze.twice": """\
        shop.bronze.twice: 0 rows have a null key and 1 rows a key that another row of the batch has, of 2 rows; \
nothing was written
          key: shop
          correct the rows at the source, or declare the columns that identify a row""",
    "shop.bronze.hashed": """\
        secret 'shop/masking_key': <state>/secrets/shop/masking_key can be read by others (mode 0644)
          chmod 600 <state>/secrets/shop/masking_key, and replace the secret if others may have read it""",
    "shop.bronze.no_database": """\
        sqlite table 'a': cannot open <state>/lost.db: there is no such file
          correct the connection's 'path'""",
    "shop.bronze.no_sqlite": """\
        sqlite table 'a': cannot read <state>/text.db: the file is not a SQLite database; correct the connection's \
'path' (SQLITE_NOTADB)""",
    "shop.bronze.no_secret": """\
        secret 'shop/erp' is missing
          looked at: <state>/secrets/shop/erp
          write its value into that file, of mode 0600; masking keys are made by `edp setup`""",
    "shop.bronze.no_file": """\
        files 'none.csv': no file in <state>/drop matches
          the root holds: cut.jsonl, empty.csv, ragged.csv
          a source without files is not taken for an empty table; correct 'object' or the connection's 'root'""",
    "shop.bronze.no_header": """\
        files 'empty.csv': file 'empty.csv': the file is empty, without even a header
          a table without rows has a header; an empty file is one that was cut off""",
    "shop.bronze.ragged": """\
        files 'ragged.csv': file 'ragged.csv', row 3 (the header counts as a row): has 3 values instead of 2
          correct the file, or check 'delimiter' and 'quote' in the table's options""",
    "shop.bronze.cut": """\
        files 'cut.jsonl': file 'cut.jsonl', line 2: is not JSON
          the file was cut off, or is no JSON lines file""",
    "shop.silver.raises": """\
        step shop.silver.raises (<root>/shop/control/processing.yaml:2): ValueError (its text is withheld: it may hold \
row values)
          at <root>/shop/steps.py:2
          raise a StepError instead where its text may be shown""",
    "shop.silver.number": """\
        step shop.silver.number (<root>/shop/control/processing.yaml:3): the function returned int
          it may return a pyarrow Table or RecordBatchReader, an iterable of RecordBatch, a DuckDB relation, a polars \
frame, or None""",
    "shop.silver.stranger": """\
        step shop.silver.stranger (<root>/shop/control/processing.yaml:4): 'bronze.customers' is no input of this step
          inputs: bronze.sales
          did you mean 'bronze.sales'?
          declare it in 'depends_on'""",
    "shop.silver.misspelt": """\
        step shop.silver.misspelt (<root>/shop/control/processing.yaml:5, sql/misspelt.sql): Binder Error: Referenced \
column "amuont" not found in FROM clause!
          Candidate bindings: "amount", "_batch_id", "_modified_at\"""",
    "shop.silver.converts": """\
        step shop.silver.converts (<root>/shop/control/processing.yaml:6, sql/converts.sql): Conversion Error while \
the query ran
          line 2: cast(email as integer) as number
          a value does not fit the type it is cast to; try_cast gives null instead
          DuckDB's own text is left out, for it may hold row values""",
    "shop.dashboard.misspelt": """\
        dashboard shop.dashboard.misspelt (<root>/shop/control/refresh.yaml:3): chart 'Sales': table gold.good has no \
column 'amuont'
          columns: id, amount
          did you mean 'amount'?""",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.create(tmp_path_factory.mktemp("project"), FILES)
    workspace.sql(
        "state/till.db",
        "create table sales (id integer primary key, shop text, amount real, email text)",
        f"insert into sales values (1, 'North', 2.5, '{PERSONAL}@example.com'), (2, 'North', 3.5, null)",
    )
    assert workspace.edp("setup").returncode == 0
    (workspace.state / "secrets/shop/masking_key").chmod(0o644)
    return workspace


@pytest.fixture(scope="module")
def ran(workspace: Workspace) -> Ran:
    """One run of everything that is wrong, and of a little that is not."""
    return workspace.run()


@pytest.mark.parametrize("asset", MESSAGES)
def test_what_cannot_be_built_says_why(ran: Ran, workspace: Workspace, asset: str) -> None:
    told = ran.errors[asset].replace(str(workspace.state), "<state>").replace(str(workspace.root), "<root>")
    assert told.splitlines() == [line.removeprefix(" " * 8) for line in MESSAGES[asset].splitlines()]


def test_everything_else_is_built(ran: Ran) -> None:
    assert {asset for asset, status in ran.statuses.items() if status == "ok"} == {
        "shop.bronze.sales",
        "shop.gold.good",
        "shop.dashboard.good",
    }
    assert set(ran.errors) == set(MESSAGES)


def test_neither_an_answer_nor_a_file_holds_the_value_of_a_row(ran: Ran, workspace: Workspace) -> None:
    assert PERSONAL not in ran.process.stdout + ran.process.stderr
    written = [file for file in (workspace.state / "dagster").rglob("*") if file.is_file()]
    assert len(written) > 3
    assert [file for file in written if PERSONAL.encode() in file.read_bytes()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("run", "shop.bronze.salse"),
            "shop.bronze.salse: selects nothing\n  known workstreams: shop\n  did you mean 'shop.bronze.sales'?\n",
        ),
        (
            ("run", 'kind:"sql" adn kind:"python"'),
            'kind:"sql" adn kind:"python": selects nothing\n'
            "  known workstreams: shop\n"
            "  `edp list` shows what is declared\n",
        ),
        (
            ("run", "--env", "prdo"),
            "dagster_home/environments/prdo.yaml: unknown environment 'prdo'\n  known environments: dev\n",
        ),
        (
            ("run", "--from-failure", "0123"),
            "no run begins with '0123'\n  give the id of a run as the UI or `edp run` shows it, or 'last'\n",
        ),
        (
            ("run", "shop", "--from-failure", "last"),
            "Usage: edp run [OPTIONS] [SELECTION]...\nTry 'edp run --help' for help.\n\n"
            "Error: give either a SELECTION or --from-failure: a failed run knows what it held\n",
        ),
        (
            ("rnu",),
            "Usage: edp [OPTIONS] COMMAND [ARGS]...\nTry 'edp --help' for help.\n\n"
            "Error: unknown command 'rnu'\n  did you mean 'run'?\n",
        ),
    ],
    ids=["table", "expression", "environment", "run", "both", "command"],
)
def test_a_wrong_word_on_the_command_line_is_told(
    ran: Ran, workspace: Workspace, arguments: tuple[str, ...], message: str
) -> None:
    _assert_told(workspace.edp(*arguments), message)


def test_a_location_that_cannot_be_imported_is_told_with_its_line(ran: Ran, workspace: Workspace) -> None:
    file = workspace.root / "shop/definitions.py"
    good = file.read_text()
    file.write_text("import dagstr\n" + good)
    try:
        result = workspace.edp("run")
    finally:
        file.write_text(good)
    _assert_told(
        result,
        "location 'shop' is left out:\n"
        "module 'shop.definitions' cannot be imported\n"
        "  ModuleNotFoundError: No module named 'dagstr'\n"
        f"  at {file}:1\n"
        "no location of the workspace can be loaded\n",
    )


def test_the_log_is_shown_when_asked_for_and_never_within_the_answer(ran: Ran, workspace: Workspace) -> None:
    assert "STEP_START" not in ran.process.stderr
    logged = workspace.run("shop.bronze.sales", "--logs")
    assert "STEP_START" in logged.process.stderr
    assert logged.statuses == {"shop.bronze.sales": "ok"}


def test_outside_a_project_it_is_told_what_was_looked_for(workspace: Workspace, tmp_path: Path) -> None:
    environment = workspace.environment()
    del environment["EDP_PROJECT"]
    result = subprocess.run(
        workspace.command("run"), env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    _assert_told(
        result,
        f"{tmp_path}/workspace.yaml: no workspace.yaml here or in any folder above\n"
        "  run edp inside a project, or set EDP_PROJECT to its folder\n",
    )


def test_a_state_folder_that_is_a_file_is_told(workspace: Workspace) -> None:
    file = workspace.root / "workspace.yaml"
    _assert_told(
        workspace.edp("run", EDP_STATE=str(file)),
        f"the state folder {file} cannot be used: File exists\n  set EDP_STATE to a folder that this user can write\n",
    )


def _assert_told(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert (result.returncode, result.stdout, result.stderr) == (1, "", message)
