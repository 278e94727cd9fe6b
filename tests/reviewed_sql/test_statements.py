"""A reviewed change holds INSERT, UPDATE and DELETE on control tables; all else is refused, whatever it looks like."""

from __future__ import annotations

import pytest
import sqlglot

from platform_core.control.ddl_parsing import SqlFault, split
from platform_core.control.reviewed_sql.guard import Checked, checked

BOTH = ("sqlite", "postgres")


def check(sql: str, dialect: str) -> list[Checked]:
    return [checked(part.node, dialect=dialect) for part in split(sql, dialect=dialect)]


ALLOWED = {
    "several statements": "UPDATE ingestion SET lookback = '1 hours'; DELETE FROM refresh WHERE name = 'board';",
    "a schema that is named": "UPDATE control.ingestion SET lookback = '1 hours'",
    "names in quotes": 'UPDATE "ingestion" SET "select" = \'["id"]\'',
    "comments anywhere": "-- 1\nUPDATE /* 2 */ ingestion -- 3\nSET lookback = '1 hours' /* ; DROP TABLE x */",
    "a text that looks like SQL": "UPDATE ingestion SET description = '''; DROP TABLE history; --'",
    "an alias and another control table": (
        "UPDATE ingestion AS i SET description = c.type FROM connection AS c WHERE c.name = i.source"
    ),
    "a query in front": (
        "WITH a AS (SELECT name FROM connection) DELETE FROM ingestion WHERE source IN (SELECT name FROM a)"
    ),
    "rows of another control table": "INSERT INTO refresh (location, name) SELECT location, name FROM ingestion",
    "rows of values": "INSERT INTO refresh (location, name) VALUES ('a', 'b'), ('c', 'd')",
    "rows that may be there": (
        "INSERT INTO refresh (location, workstream, name) VALUES ('a', 'a', 'b') "
        "ON CONFLICT (location, workstream, name) DO UPDATE SET title = excluded.title WHERE refresh.title <> 'x'"
    ),
    "rows that may be there and stay": "INSERT INTO refresh (location, name) VALUES ('a', 'b') ON CONFLICT DO NOTHING",
    "case, arithmetic and texts": (
        "UPDATE ingestion SET parallel = parallel + 1, description = CASE WHEN mode = 'full' THEN lower(name) "
        "ELSE upper(trim(name)) || '!' END WHERE cursor IS NOT NULL AND NOT name LIKE 'a%' AND parallel BETWEEN 1 AND 3"
    ),
    "several columns at once": "UPDATE ingestion SET (description, cursor) = ('a', 'b')",
}
ALLOWED_IN = {
    "postgres": {
        "JSON functions": (
            "UPDATE ingestion SET columns = jsonb_set(columns::jsonb, '{email,personal}', 'true')::json "
            "WHERE columns::jsonb -> 'email' ->> 'personal' IS NULL"
        ),
        "a key of JSON taken out": "UPDATE ingestion SET columns = (columns::jsonb - 'email')::json",
        "rows of another table": "DELETE FROM ingestion USING connection c WHERE c.name = ingestion.source",
        "dollar quotes": "UPDATE ingestion SET description = $tag$it's; DROP TABLE x$tag$",
        "an array": "DELETE FROM ingestion WHERE name = ANY (ARRAY['a', 'b'])",
    },
    "sqlite": {
        "JSON functions": "UPDATE ingestion SET columns = json_set(columns, '$.email.personal', json('true'))",
        "rows of JSON": "DELETE FROM ingestion WHERE name IN (SELECT value FROM json_each('[\"a\"]'))",
    },
}


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("sql", ALLOWED.values(), ids=ALLOWED)
def test_what_changes_control_tables_is_let_through(sql: str, dialect: str) -> None:
    for each in check(sql, dialect):
        [again] = sqlglot.parse(each.sql, dialect=dialect)
        assert again is not None
        assert "DROP TABLE" not in again.sql(comments=True).replace("'''; DROP TABLE history; --'", "")


@pytest.mark.parametrize(
    ("dialect", "sql"), [(dialect, sql) for dialect, found in ALLOWED_IN.items() for sql in found.values()]
)
def test_what_one_database_has_is_let_through(dialect: str, sql: str) -> None:
    assert check(sql, dialect)


REFUSED = {
    "CREATE TABLE ingestion2 (a int)": "CREATE has no place",
    "DROP TABLE ingestion": "DROP has no place",
    "ALTER TABLE ingestion ADD COLUMN a int": "ALTER has no place",
    "SELECT 1": "SELECT has no place",
    "BEGIN": "has no place",
    "COMMIT": "has no place",
    "EXPLAIN ANALYZE DELETE FROM ingestion": "EXPLAIN has no place",
    "UPDATE state SET serial = 1": "'state' is no control table",
    "DELETE FROM applies": "'applies' is no control table",
    "DELETE FROM history": "'history' is no control table",
    "DELETE FROM locks": "'locks' is no control table",
    "DELETE FROM migrations": "'migrations' is no control table",
    "DELETE FROM overrides": "'overrides' is no control table",
    "DELETE FROM sql_changes": "'sql_changes' is no control table",
    "DELETE FROM leases": "'leases' is no control table",
    "INSERT INTO refresh (name) SELECT content FROM history": "'history' is no control table that may be read",
    "UPDATE ingestion SET description = (SELECT mark FROM state)": "'state' is no control table that may be read",
    "UPDATE ingestion SET description = 'a' WHERE EXISTS (SELECT 1 FROM control.locks)": "'locks' is no control table",
    "UPDATE public.ingestion SET description = 'a'": "lies in another schema",
    "UPDATE pg_catalog.pg_class SET relname = 'a'": "lies in another schema",
    "UPDATE other.control.ingestion SET description = 'a'": "lies in another schema",
    "DELETE FROM main.ingestion": "lies in another schema",
    "UPDATE \"Ingestion\" SET description = 'a'": "'Ingestion' is no control table",
    "UPDATE ingest\u0131on SET description = 'a'": "is not written in letters, digits and _",
    "UPDATE \u0456ngestion SET description = 'a'": "is not written in letters, digits and _",
    "UPDATE ingestion SET \"descr\u0456ption\" = 'a'": "is not written in letters, digits and _",
    "UPDATE ingestion SET hash = ''": "'hash' says where a row comes from",
    "UPDATE ingestion SET HASH = ''": "'hash' says where a row comes from",
    "UPDATE ingestion SET \"origin\" = 'git'": "'origin' says where a row comes from",
    "UPDATE ingestion SET (description, serial) = ('a', 1)": "'serial' says where a row comes from",
    "INSERT INTO refresh (location, name, author) VALUES ('a', 'b', 'c')": "'author' says where a row comes from",
    "INSERT INTO refresh (location, name) VALUES ('a', 'b') ON CONFLICT (location, workstream, name) "
    "DO UPDATE SET git_commit = 'x'": "'git_commit' says where a row comes from",
    "UPDATE variable SET workstream = 'a'": "'workstream' of table variable is filled in",
    "UPDATE ingestion SET lookbak = '1 hours'": "has no column 'lookbak'",
    "INSERT INTO refresh VALUES ('a')": "an INSERT names its columns",
    "INSERT INTO refresh DEFAULT VALUES": "an INSERT names its columns|has a part",
    "DELETE FROM ingestion RETURNING *": "RETURNING gives rows to nobody",
    "UPDATE ingestion SET description = random()": "function rand",
    "UPDATE ingestion SET description = CURRENT_TIMESTAMP": "function current_timestamp",
    "UPDATE ingestion SET description = row_number() OVER ()": "WINDOW has no place",
    "WITH state AS (SELECT 1 AS x), b AS (SELECT * FROM applies) DELETE FROM ingestion": "'applies' is no control",
    "WITH b AS (SELECT * FROM state), state AS (SELECT 1) DELETE FROM ingestion": "'state' is no control table",
    "WITH ingestion AS (SELECT 1 AS name) DELETE FROM ingestion": "'ingestion' is a control table",
    "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x FROM a) DELETE FROM ingestion": "'a' is no control table",
    "DELETE FROM ingestion WHERE name IN (WITH history AS (SELECT 1 AS x) SELECT x FROM history)": "WITH stands inside",
    "TRUNCATE TABLE ingestion": "has no place",
    "DELETE FROM ingestion WHERE name IN (DELETE FROM refresh RETURNING name)": "DELETE has no place|cannot be read",
    "DELETE FROM ingestion WHERE name IN (SELECT name FROM (DELETE FROM refresh RETURNING name) AS x)": (
        "DELETE has no place|cannot be read"
    ),
}
REFUSED_IN = {
    "postgres": {
        "COPY ingestion FROM '/etc/passwd'": "COPY has no place",
        "COPY ingestion TO PROGRAM 'sh'": "COPY has no place",
        "COPY (SELECT 1) TO '/tmp/x'": "COPY has no place",
        "DO $$ BEGIN DELETE FROM history; END $$": "DO has no place",
        "CALL something()": "CALL has no place",
        "MERGE INTO ingestion USING refresh ON true WHEN MATCHED THEN DELETE": "MERGE has no place",
        "SET search_path = public": "SET has no place",
        "GRANT ALL ON ingestion TO public": "GRANT has no place",
        "LISTEN x": "cannot be read|has no place",
        "PREPARE x AS DELETE FROM history": "cannot be read|has no place",
        "SELECT * INTO x FROM ingestion": "SELECT has no place",
        "CREATE TABLE x AS SELECT * FROM ingestion": "CREATE has no place",
        "WITH gone AS (DELETE FROM history RETURNING *) UPDATE ingestion SET description = 'a'": "does more than read",
        "WITH gone AS (DELETE FROM refresh RETURNING *) INSERT INTO ingestion (name) SELECT name FROM gone": "more",
        "WITH a AS (INSERT INTO refresh (name) VALUES ('x') RETURNING name) DELETE FROM ingestion": "more than read",
        "UPDATE ingestion SET description = pg_read_file('/etc/passwd')": "function pg_read_file",
        "UPDATE ingestion SET description = pg_catalog.pg_read_file('/etc/passwd')": "DOT has no place",
        "UPDATE ingestion SET description = lo_import('/etc/passwd')::text": "function lo_import",
        "UPDATE ingestion SET description = lo_export(1, '/tmp/x')::text": "function lo_export",
        "UPDATE ingestion SET description = set_config('role', 'postgres', true)": "function set_config",
        "UPDATE ingestion SET description = query_to_xml('DELETE FROM history', true, true, '')::text": "query_to_xml",
        "UPDATE ingestion SET description = pg_sleep(10)::text": "function pg_sleep",
        "UPDATE ingestion SET description = nextval('history_id_seq')::text": "function next",
        "UPDATE ingestion SET description = pg_advisory_lock(1)::text": "function pg_advisory_lock",
        "UPDATE ingestion SET description = current_setting('x')": "function current_setting",
        "DELETE FROM ingestion USING dblink('host=x', 'DELETE') AS t(a text)": "function dblink",
        "DELETE FROM ingestion USING generate_series(1, 1000000000)": "generate_series",
        "UPDATE ingestion SET description = (SELECT rolpassword FROM pg_authid LIMIT 1)": "'pg_authid' is no control",
        "UPDATE ingestion SET description = 'pg_authid'::regclass": "has no place",
        "UPDATE ingestion SET description = (SELECT name FROM connection LIMIT 1 FOR UPDATE)": "locks",
        "UPDATE ONLY ingestion SET description = 'a'": "only",
        "UPDATE ingestion SET description = E'\\x41'": "has no place",
        "UPDATE ingestion SET U&\"d\\0065scription\" = 'a'": "a column that is written is named alone",
        "UPDATE ingestion SET description = $1": "PARAMETER has no place",
        "DELETE FROM ingestion WHERE EXISTS (SELECT 1 FROM connection, LATERAL (SELECT 1) AS x)": "LATERAL has no",
        "DELETE FROM ingestion WHERE ctid = ANY (ARRAY(SELECT ctid FROM history))": "'history' is no control table",
    },
    "sqlite": {
        "ATTACH 'other.db' AS other": "ATTACH has no place",
        "DETACH other": "DETACH has no place",
        "PRAGMA writable_schema = 1": "PRAGMA has no place",
        "VACUUM INTO 'copy.db'": "VACUUM has no place|cannot be read",
        "REPLACE INTO refresh (name) VALUES ('a')": "REPLACE has no place",
        "INSERT OR REPLACE INTO refresh (name) VALUES ('a')": "alternative",
        "UPDATE ingestion SET description = load_extension('x.so')": "function load_extension",
        "UPDATE ingestion SET description = readfile('/etc/passwd')": "function readfile",
        "UPDATE ingestion SET description = writefile('x', 'y')": "function writefile",
        "UPDATE ingestion SET description = randomblob(1000000000)": "function randomblob",
        "DELETE FROM sqlite_master": "'sqlite_master' is no control table",
        "DELETE FROM ingestion WHERE name IN (SELECT name FROM pragma_table_info('state'))": "pragma_table_info",
        "UPDATE ingestion SET description = ?": "PLACEHOLDER has no place",
    },
}


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("sql", REFUSED)
def test_all_else_is_refused(sql: str, dialect: str) -> None:
    with pytest.raises(SqlFault, match=REFUSED[sql]):
        check(sql, dialect)


@pytest.mark.parametrize(
    ("dialect", "sql", "said"),
    [(dialect, sql, said) for dialect, found in REFUSED_IN.items() for sql, said in found.items()],
)
def test_what_one_database_could_do_is_refused(dialect: str, sql: str, said: str) -> None:
    with pytest.raises(SqlFault, match=said):
        check(sql, dialect)


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE ingestion SET description = 'a'; DROP TABLE history",
        "UPDATE ingestion SET description = 'a' -- \n; DROP TABLE history",
        "UPDATE ingestion SET description = 'a' /* */; DELETE FROM history",
        "DROP TABLE history; UPDATE ingestion SET description = 'a'",
    ],
)
def test_a_statement_behind_a_harmless_one_is_looked_at(sql: str, dialect: str) -> None:
    with pytest.raises(SqlFault):
        check(sql, dialect)


@pytest.mark.parametrize("dialect", BOTH)
def test_a_statement_in_a_comment_is_not_run(dialect: str) -> None:
    [found] = check("UPDATE ingestion SET description = 'a' /* , hash = 'x' */ -- WHERE name = 'b'", dialect)
    assert "hash" not in found.sql
    assert "WHERE" not in found.sql


def test_a_control_table_is_named_in_full() -> None:
    [found] = check("DELETE FROM ingestion WHERE name IN (SELECT name FROM refresh)", "postgres")
    assert found.sql.count('"control".') == 2
