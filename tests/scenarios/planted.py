"""People who exist nowhere, with values of every type, and a project that loads them and fails in every way."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.scenarios.taint import Value

PEOPLE = 60

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("team", pa.string()),
        ("name", pa.string()),
        ("email", pa.string()),
        ("phone", pa.string()),
        ("initials", pa.string()),
        ("photo", pa.binary()),
        ("citizen", pa.int64()),
        ("salary", pa.decimal128(18, 2)),
        ("born", pa.date32()),
        ("seen", pa.timestamp("us")),
        ("signed", pa.timestamp("us", "UTC")),
        ("postcode", pa.string()),
        ("document", pa.string()),
        ("aliases", pa.list_(pa.string())),
        ("home", pa.struct([("street", pa.string()), ("number", pa.int64())])),
        ("scores", pa.map_(pa.string(), pa.int64())),
        ("note", pa.string()),
        ("weight", pa.float64()),
    ]
)

MASKS = """\
      name: {mask: hash, domain: text}
      email: {mask: partial, keep_first: 1, email: true}
      phone: {mask: hash, domain: phone, country: NL}
      initials: {mask: full}
      photo: {mask: full}
      citizen: {mask: hash, domain: identifier}
      salary: {mask: hash, domain: number}
      born: {mask: year}
      seen: {mask: truncate, to: month}
      signed: {mask: "null"}
      postcode: {mask: truncate, keep: 4}
      document: {mask: full}
      aliases: {mask: full}
      home: {mask: full}
      scores: {mask: "null"}
      note: {mask: hash, domain: text}
      weight: {mask: full}
"""


def person(number: int) -> dict[str, Any]:
    """One person; every value but key and team is theirs alone."""
    return {
        "id": number,
        "team": f"team {number % 3}",
        "name": f"Quillon Abernathy-Vogt {number:04d}",
        "email": f"quillon{number:04d}@vogt-canary.example",
        "phone": f"06-876{number:05d}",
        "initials": f"QAV-canary-{number:04d}",
        "photo": b"\x00\xffcanary-photo-" + str(number).encode(),
        "citizen": 9_182_736_455_460_000 + number,
        "salary": Decimal(7_351_628_400 + number).scaleb(-2),
        "born": dt.date(1871, 3, 2) + dt.timedelta(days=number),
        "seen": dt.datetime(1872, 5, 17, 17, 43, 21, 987_000 + number),
        "signed": dt.datetime(1873, 6, 18, 17, 43, 21, 987_000 + number, tzinfo=dt.UTC),
        "postcode": f"9876 Q{number:03d}",
        "document": json.dumps({"ssn": f"canary-json-{number:04d}"}),
        "aliases": [f"canary-alias-{number:04d}", "Vogtje the Planted"],
        "home": {"street": f"canary-street {number:04d}", "number": 8_273_645_546_370_000 + number},
        "scores": [(f"canary-score-{number:04d}", number)],
        "note": f"met canary-note {number:04d}, liked it",
        "weight": 72.00138264 + number,
    }


def planted() -> list[Value]:
    """What must be found at the source and nowhere else; parts that all values of a column share where there are."""
    people = [person(number) for number in range(1, PEOPLE + 1)]
    return [
        "Abernathy-Vogt",
        "quillon00",
        "QAV-canary",
        b"canary-photo",
        "9876 Q0",
        "9876Q0",
        "canary-json",
        "canary-alias",
        "Vogtje the Planted",
        "canary-street",
        "canary-score",
        "canary-note",
        *(str(person["weight"]) for person in people),
        *(person["phone"] for person in people),
        *(person["phone"].replace("-", "") for person in people),
        *(person["phone"].replace("06-", "+316") for person in people),
        *(person[name] for person in people for name in ("citizen", "salary", "born", "seen", "signed")),
        *(person["home"]["number"] for person in people),
    ]


def table(numbers: range) -> pa.Table:
    """People of these numbers."""
    return pa.Table.from_pylist([person(number) for number in numbers], schema=SCHEMA)


def put(folder: Path, rows: pa.Table) -> None:
    """Put rows at the source as one file."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, folder / "people.parquet")


def put_sources(sources: Path) -> None:
    """Every source, each broken in its own way, but `people` and `seen_people`."""
    everyone = table(range(1, PEOPLE + 1))
    put(sources / "people", everyone)
    put(sources / "seen_people", everyone)
    put(sources / "leaving", everyone)
    put(sources / "drifting", everyone)
    put(sources / "narrowing", everyone)
    put(sources / "doubled", pa.concat_tables([everyone, everyone.slice(0, 3)]))
    put(sources / "refused", pa.concat_tables([everyone, everyone.slice(0, 3)]))
    put(sources / "mask_misfit", everyone)
    # The second file of two ends in the middle.
    put(sources / "torn", everyone)
    whole = (sources / "torn" / "people.parquet").read_bytes()
    (sources / "torn" / "people2.parquet").write_bytes(whole[: len(whole) // 2])
    for name, cell in {"bad_cell": "Abernathy-Vogt", "overflow": "9182736455460001918273645546"}.items():
        lines = [f"{number},Quillon Abernathy-Vogt {number:04d},{number}" for number in range(1, 30_000)]
        (sources / name).mkdir(parents=True, exist_ok=True)
        (sources / name / "people.csv").write_text("id,name,age\n" + "\n".join(lines) + f"\n30000,x,{cell}\n")
    (sources / "ragged").mkdir(parents=True)
    (sources / "ragged" / "people.csv").write_text("id,name,age\n1,Quillon Abernathy-Vogt,2,canary-note\n")


def _parquet_table(name: str, **more: str) -> str:
    fields = {"mode": "full", "key": "[id]", **more}
    said = "".join(f"    {key}: {value}\n" for key, value in fields.items())
    return f"  - object: '{name}/*.parquet'\n    table: {name}\n{said}    columns:\n{MASKS}"


def _csv_table(name: str) -> str:
    return (
        f"  - object: '{name}/*.csv'\n    table: {name}\n    mode: full\n    key: [id]\n"
        "    options: {columns: {id: integer, age: integer}}\n"
        "    columns:\n      name: {mask: hash, domain: text}\n"
    )


CONTROL = {
    "crm/control/location.yaml": "location: crm\nworkstreams:\n  - {name: crm, owners: ['team:crm']}\n",
    "crm/control/connections.yaml": (
        "connections:\n"
        "  - {name: drop, type: files, root: '${env.state}/../sources'}\n"
        "  - {name: till, type: postgres, host: 127.0.0.1, port: 1, user: reader, database: till,"
        " password: {secret: crm/till_password}}\n"
    ),
    "crm/control/ingestion/drop.yaml": "source: drop\ntables:\n"
    + _parquet_table("people")
    + _parquet_table("seen_people", mode="incremental", cursor="id", snapshot_history="true", isolated="true")
    + _parquet_table("leaving", delete_floor="1")
    + _parquet_table("drifting")
    + _parquet_table("narrowing")
    + _parquet_table("doubled", on_bad_key="quarantine")
    + _parquet_table("refused")
    + _parquet_table("mask_misfit").replace("salary: {mask: hash, domain: number}", "salary: {mask: year}")
    + _parquet_table("torn")
    + _csv_table("bad_cell")
    + _csv_table("overflow")
    + _csv_table("ragged"),
    "crm/control/ingestion/till.yaml": "source: till\ntables:\n  - {object: public.sales, mode: full, key: [id]}\n",
    "crm/control/processing.yaml": (
        "steps:\n"
        "  - {name: teams, layer: silver, kind: sql, sql: sql/teams.sql}\n"
        "  - {name: broken, layer: silver, kind: sql, sql: sql/broken.sql}\n"
    ),
    "crm/sql/teams.sql": "select team, count(*) people, min(name) first from bronze.people group by 1\n",
    "crm/sql/broken.sql": "select name::int n from bronze.people\n",
}
"""Control files of the project."""

HEALTHY = ("people", "seen_people", "leaving", "drifting", "narrowing", "doubled")
BROKEN = ("refused", "mask_misfit", "torn", "bad_cell", "overflow", "ragged", "sales")
