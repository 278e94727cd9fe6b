"""Run a dbt project over the lake's tables, and publish the models that readers see as Delta tables."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from platform_core.engines.messages import clean_text
from platform_core.errors import StepError, StorageError
from platform_core.lake.delta import write
from platform_core.operations.column_lineage import column_lineage
from platform_core.operations.dbt_deferral import deferral
from platform_core.operations.dbt_log import failure_text, result_text
from platform_core.operations.dbt_manifest import DbtManifest, Model
from platform_core.operations.dbt_project import DbtProject, prepare_target
from platform_core.operations.platform import Platform
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_GOOD = ("success", "pass", "warn", "no-op")
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 10
_BATCH_ROWS = 65_536
_MOST_LINES = 10_000
_MOST_MEMORY = "1GB"
_KNOWN_SOURCES = "SELECT relation FROM edp.sources"
_VIEWS = "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
_DEFERRED = "SELECT workstream, layer, name FROM edp.deferred ORDER BY ALL"


@dataclass(frozen=True, kw_only=True)
class NodeResult:
    """What became of one model or test.

    Args:
        status: dbt's word: success, pass, warn, fail, error, skipped.
        seconds: how long it took.
        message: why it failed, free of row values; empty where it did not.
        failures: rows that a test found wanting; None for a model.
    """

    status: str
    seconds: float
    message: str = ""
    failures: int | None = None

    @property
    def good(self) -> bool:
        """Whether what follows may build on it."""
        return self.status in _GOOD


_NOT_REACHED = NodeResult(status="not reached", seconds=0.0)


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """One model that was built, and published if it is one that readers see.

    Args:
        seconds: that dbt took.
        columns: type by column, as dbt's database has them.
        column_lineage: columns that each column is made from: lake tables and models of the project.
        rows: rows published; None where it is not published.
        version: Delta version published; None where it is not published.
        written_bytes: size of the files that were written.
    """

    seconds: float
    columns: Mapping[str, str] = field(default_factory=dict)
    column_lineage: Mapping[str, tuple[tuple[TableRef, str], ...]] = field(default_factory=dict)
    rows: int | None = None
    version: int | None = None
    written_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class DbtResult:
    """What a run of a project did.

    Args:
        models: what is good, by unique id, in build order: built, tested and, where it is to be, published.
        tests: result by unique id of each test that ran.
        failures: why it was not all good, one line each; empty where it was.
        deferred: shared tables that stood in for the person's own, also below views that earlier runs have left.
    """

    models: Mapping[str, ModelResult]
    tests: Mapping[str, NodeResult]
    failures: tuple[str, ...] = ()
    deferred: tuple[TableRef, ...] = ()


def build(
    project: DbtProject,
    *,
    manifest: DbtManifest,
    models: Collection[str],
    tests: Collection[str],
    platform: Platform,
) -> DbtResult:
    """Build models, run their tests, and publish each model that passed all tests that are more than a warning.

    A model that failed, or one of whose tests failed or did not run, keeps the version that was published before.

    Args:
        project: the project.
        manifest: what it consists of.
        models: unique ids of the models to build.
        tests: unique ids of tests to run beside those of the models.
        platform: the environment.

    Raises:
        StepError: dbt did not run to its end, or the run was cancelled; nothing was published.
        StorageError: the lake refused to be written.
    """
    chosen = {*tests, *(test.unique_id for test in manifest.tests if _concerns(test.reads, models))}
    with project.locked(cancelled=platform.cancelled, log=platform.log.info) as lock:
        prepare_target(project)
        more = deferral(manifest, wanted=models, present=_present(project, platform), lake=platform.lake)
        built_too = {*models, *more.built}
        results = _run(
            project,
            _selection(manifest, models=built_too, tests=chosen),
            lock=lock,
            platform=platform,
            deferred=more.as_variable() if more.read else None,
        )
        nodes = {unique_id: _node(result) for unique_id, result in results.items()}
        good = [model for model in manifest.models if model.unique_id in models and _is_good(model, manifest, nodes)]
        built = _collect(project, good, manifest=manifest, results=results, platform=platform) if good else {}
        deferred = _deferred(project, platform) if good else ()
    return DbtResult(
        models=built,
        tests={unique_id: nodes[unique_id] for unique_id in sorted(chosen) if unique_id in nodes},
        failures=tuple(_failures(manifest, nodes, wanted=built_too, built={*built, *_good_too(more.built, nodes)})),
        deferred=deferred,
    )


def _collect(
    project: DbtProject,
    good: Sequence[Model],
    *,
    manifest: DbtManifest,
    results: Mapping[str, Mapping[str, Any]],
    platform: Platform,
) -> dict[str, ModelResult]:
    """Look at the good models in dbt's database, and publish those that readers see."""
    built = {}
    with _opened(project) as connection:
        columns = _columns(connection)
        for model in good:
            result = results[model.unique_id]
            built[model.unique_id] = ModelResult(
                seconds=float(result["execution_time"]),
                columns=columns.get(model.relation, {}),
                column_lineage=_lineage(result, columns, manifest),
            )
            if model.published:
                built[model.unique_id] = _publish(model, built[model.unique_id], connection, platform=platform)
    return built


def _present(project: DbtProject, platform: Platform) -> set[tuple[str, str]]:
    """Schema and name of what dbt's database holds, other than views of the lake; only asked of a person's lake."""
    if platform.lake.shared is None or not project.database.is_file():
        return set()
    with _opened(project) as connection:
        known = (
            {name for (name,) in connection.execute(_KNOWN_SOURCES).fetchall()}
            if _holds(connection, "sources")
            else set()
        )
        views = {tuple(row) for row in connection.execute(_VIEWS).fetchall()}
        shown = {relation for relation in views if ".".join(relation) in known}
        return {relation for relation in _columns(connection) if relation not in shown}


def _deferred(project: DbtProject, platform: Platform) -> tuple[TableRef, ...]:
    """What the last dbt process of a project read from the shared tables, as it has left it in the database."""
    if platform.lake.shared is None:
        return ()
    with _opened(project) as connection:
        rows = connection.execute(_DEFERRED).fetchall() if _holds(connection, "deferred") else []
    return tuple(TableRef(*row) for row in rows)


def _holds(connection: DuckDBPyConnection, table: str) -> bool:
    """Whether the lake's plug-in has made a table of its own; a project need not use it."""
    return ("edp", table) in _columns(connection)


def _good_too(built: Collection[str], nodes: Mapping[str, NodeResult]) -> set[str]:
    return {unique_id for unique_id in built if unique_id in nodes and nodes[unique_id].good}


def _concerns(read: Sequence[str], models: Collection[str]) -> bool:
    return any(unique_id in models for unique_id in read)


def _selection(manifest: DbtManifest, *, models: Collection[str], tests: Collection[str]) -> list[str]:
    """Arguments that select exactly these nodes; none where that is all there is."""
    if len(models) == len(manifest.models) and len(tests) == len(manifest.tests):
        return []
    selectors = [
        *(model.selector for model in manifest.models if model.unique_id in models),
        *(test.selector for test in manifest.tests if test.unique_id in tests),
    ]
    return ["--indirect-selection", "empty", "--select", *selectors]


def _run(
    project: DbtProject, selection: list[str], *, lock: int, platform: Platform, deferred: str | None
) -> dict[str, Mapping[str, Any]]:
    """Run `dbt build` to its end; its results by unique id."""
    process = subprocess.Popen(  # noqa: S603 - our interpreter, no shell
        project.command("build", *selection, target=project.target),
        cwd=project.folder,
        env=project.environment(platform.lake, deferred=deferred),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=(lock,),
    )
    output = _Output(process)
    said: deque[str] = deque(maxlen=_MOST_LINES)
    try:
        for line in output:
            if platform.cancelled():
                raise StepError(f"dbt project {project.name}: cancelled; nothing was published")
            if line is None:
                continue
            said.append(line)
            if text := result_text(line):
                platform.log.info(text)
        process.wait()
    except BaseException:
        _stop(process)
        raise
    finally:
        output.close()
    path = project.target / "run_results.json"
    # 0: all good; 1: some model or test failed; anything else, and dbt did not get through.
    if process.returncode not in (0, 1) or not path.is_file():
        raise StepError(
            f"dbt project {project.name}: {failure_text(said)}\n  exit code {process.returncode}; nothing was published"
        )
    return {result["unique_id"]: result for result in json.loads(path.read_bytes())["results"]}


class _Output:
    """Lines as a process prints them, and None whenever it has been silent for a moment."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, name="dbt-output", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[str | None]:
        while self._thread.is_alive() or not self._lines.empty():
            try:
                yield self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                yield None

    def close(self) -> None:
        """Let go of the pipes; the process has ended."""
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask a process to stop, and stop it if it does not."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _node(result: Mapping[str, Any]) -> NodeResult:
    good = result["status"] in _GOOD
    return NodeResult(
        status=result["status"],
        seconds=float(result["execution_time"]),
        message="" if good else clean_text(result.get("message") or ""),
        failures=result.get("failures"),
    )


def _is_good(model: Model, manifest: DbtManifest, nodes: Mapping[str, NodeResult]) -> bool:
    """Whether the model was built and passed every test of it that is more than a warning."""
    tests = [test.unique_id for test in manifest.tests if test.blocking and model.unique_id in test.reads]
    return all(unique_id in nodes and nodes[unique_id].good for unique_id in (model.unique_id, *tests))


def _failures(
    manifest: DbtManifest, nodes: Mapping[str, NodeResult], *, wanted: Collection[str], built: Collection[str]
) -> Iterator[str]:
    for model in manifest.models:
        if model.unique_id not in wanted or model.unique_id in built:
            continue
        node = nodes.get(model.unique_id, _NOT_REACHED)
        status = "not all of its tests passed" if node.good else node.status
        kept = "; what was published before stays" if model.published else ""
        yield f"{model.ref}: {status}{kept}" + _indented(node.message)
    for test in manifest.tests:
        node = nodes.get(test.unique_id, _NOT_REACHED)
        if node.status in ("fail", "error"):
            yield f"test {test.name} on {test.on}: {node.status}" + _indented(node.message)
    if unknown := sorted(set(nodes) - {*manifest.model_by_id, *manifest.test_by_id}):
        advice = "edp setup (or make setup) builds the manifest anew; then reload the definitions"
        yield f"{', '.join(unknown)}: not known when definitions were loaded" + _indented(advice)


def _indented(message: str) -> str:
    return f"\n  {message}" if message else ""


@contextmanager
def _opened(project: DbtProject) -> Iterator[DuckDBPyConnection]:
    """dbt's database, now that dbt has ended; nobody writes it while the project is locked."""
    import duckdb

    try:
        connection = duckdb.connect(
            str(project.database),
            read_only=True,
            config={"memory_limit": _MOST_MEMORY, "python_enable_replacements": "false"},
        )
    except duckdb.Error as error:
        raise StorageError(f"{project.database} cannot be opened ({type(error).__name__})") from None
    try:
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def _columns(connection: DuckDBPyConnection) -> dict[tuple[str, str], dict[str, str]]:
    """Type by column, by schema and name of the relation; sources are among them."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    rows = connection.execute(
        "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE NOT internal ORDER BY schema_name, table_name, column_index"
    ).fetchall()
    for schema, table, column, type_ in rows:
        found.setdefault((schema, table), {})[column] = type_
    return found


def _lineage(
    result: Mapping[str, Any],
    columns: Mapping[tuple[str, str], Mapping[str, str]],
    manifest: DbtManifest,
) -> dict[str, tuple[tuple[TableRef, str], ...]]:
    code = result.get("compiled_code")
    relation = result.get("relation_name")
    if not code or not relation:
        return {}
    database = str(relation).split(".")[0].strip('"')
    refs = {(database, *model.relation): model.ref for model in manifest.models} | {
        (database, source.layer, source.name): source for source in manifest.sources
    }
    schemas = {(database, *name): tuple(types) for name, types in columns.items()}
    return {
        column: tuple((refs[table], origin) for table, origin in origins if table in refs)
        for column, origins in column_lineage(str(code), schemas=schemas).items()
    }


def _publish(model: Model, result: ModelResult, connection: DuckDBPyConnection, *, platform: Platform) -> ModelResult:
    """Replace the Delta table of a model by its rows in dbt's database, in one commit."""
    from sqlglot import exp

    if platform.cancelled():
        raise StepError(f"{model.ref}: cancelled before it was published")
    schema, name = model.relation
    rows = connection.sql(exp.select("*").from_(exp.table_(name, db=schema, quoted=True)).sql(dialect="duckdb"))
    written = write(
        rows.to_arrow_reader(_BATCH_ROWS),
        table=model.ref,
        uri=platform.lake.table(model.ref),
        storage_options=platform.lake.storage_options,
        mode=WriteMode.OVERWRITE,
        metadata={"dbt_model": model.unique_id, "dbt_checksum": model.checksum},
    )
    platform.log.info("%s: published %d rows as version %d", model.ref, written.rows, written.version)
    return replace(result, rows=written.rows, version=written.version, written_bytes=written.bytes)
