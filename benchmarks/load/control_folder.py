"""Writes the control folder of a location with thousands of tables."""

from __future__ import annotations

from pathlib import Path

TABLES_PER_FILE = 100
INPUTS = 3

_LOCATION = """location: big
workstreams:
  - name: big
    description: A location as large as a company's.
    owners: [team:big]
    schedule: {cron: "0 6 * * *", timezone: Europe/Amsterdam}
"""
_VARIABLES = """variables:
  folder: {default: "${env.state}/sources"}
"""
_CONNECTIONS = """connections:
  - name: erp
    type: sqlite
    path: ${var.folder}/erp.db
    max_concurrent: 4
"""
_TABLE = """  - object: main.table_{number}
    table: table_{number}
    mode: incremental
    key: [id]
    cursor: updated_at
    lookback: 2 hours
    description: Table {number} of the source.
    columns:
      email: {{mask: hash, domain: email}}
      name: {{mask: full}}
"""
_STEP = """  - name: step_{number}
    layer: silver
    kind: python
    function: big.steps:run
    depends_on: [{inputs}]
    description: Step {number}.
"""
_QUERY_STEP = """  - name: step_{number}
    layer: silver
    kind: sql
    sql: sql/step_{number}.sql
    depends_on: [{inputs}]
    description: Step {number}.
"""
_QUERY = """-- Step {number}.
select first.id, first.name, count(*) as number_of_rows, max(second.updated_at) as updated_at
from {inputs[0]} as first
join {inputs[1]} as second on second.id = first.id
left join {inputs[2]} as third on third.id = first.id and third._is_current
where first._is_current
group by all
"""


def write_control_folder(folder: Path, *, tables: int, queries: int) -> Path:
    """Write a package of the given size; two fifths of its tables are ingested, the others made by steps.

    Args:
        folder: where the package ``big`` is put.
        tables: number of tables in all.
        queries: number of steps that are SQL files; the other steps are Python functions.

    Returns:
        The control folder.
    """
    root = folder / "big"
    control = root / "control"
    for name in ("ingestion", "processing"):
        (control / name).mkdir(parents=True)
    (root / "sql").mkdir()
    (root / "__init__.py").touch()
    (root / "steps.py").write_text("def run(context):\n    return None\n")
    (control / "location.yaml").write_text(_LOCATION)
    (control / "variables.yaml").write_text(_VARIABLES)
    (control / "connections.yaml").write_text(_CONNECTIONS)
    ingested = tables * 2 // 5
    _write_lists(control / "ingestion", "source: erp\ntables:\n", [_TABLE.format(number=n) for n in range(ingested)])
    steps = []
    for number in range(tables - ingested):
        inputs = inputs_of(number, ingested=ingested)
        template = _QUERY_STEP if number < queries else _STEP
        steps.append(template.format(number=number, inputs=", ".join(inputs)))
        if number < queries:
            (root / "sql" / f"step_{number}.sql").write_text(_QUERY.format(number=number, inputs=inputs))
    _write_lists(control / "processing", "steps:\n", steps)
    return control


def inputs_of(number: int, *, ingested: int) -> list[str]:
    """The tables that a step reads: two ingested ones, and an earlier step where there is one."""
    inputs = [f"bronze.table_{(number * 7 + offset) % ingested}" for offset in range(INPUTS)]
    if number >= 10:
        # Ten chains side by side, each a hundred steps long at most: a graph as deep as a company's, not deeper.
        inputs[0] = f"silver.step_{number - 10}" if number % 1000 >= 10 else inputs[0]
    return inputs


def _write_lists(folder: Path, head: str, entries: list[str]) -> None:
    for start in range(0, len(entries), TABLES_PER_FILE):
        file = folder / f"part_{start // TABLES_PER_FILE}.yaml"
        file.write_text(head + "".join(entries[start : start + TABLES_PER_FILE]))
