"""Steps of kind python."""

from __future__ import annotations

import datetime as dt
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import SourceError, StepError
from platform_core.lake.delta import open_table
from platform_core.operations.platform import Platform
from platform_core.operations.process import LastSuccess, StepResult, process
from platform_core.specs.processing import ProcessingSpec, WriteMode

SECRET = "ada@example.org"


@pytest.fixture
def run(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Run a step whose module is given as text; each call is a module of its own."""
    root = tmp_path / "package"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    modules: list[str] = []

    def run_step(text: str, *, on: Platform = platform, last: LastSuccess | None = None, **fields: Any) -> StepResult:
        module = f"team_module_{tmp_path.name}_{len(modules)}".replace("[", "_").replace("]", "_")
        modules.append(module)
        body = textwrap.dedent(text)
        (root / f"{module}.py").write_text(f"import pyarrow as pa\nfrom platform_core.errors import *\n{body}")
        spec = {
            "workstream": "mobility",
            "layer": "silver",
            "name": "made",
            "kind": "python",
            "function": f"{module}:step",
            "depends_on": ("bronze.rides",),
        }
        return process(ProcessingSpec(**spec | fields), root=root, platform=on, last=last)

    yield run_step
    for module in modules:
        sys.modules.pop(module, None)


def rides(*ids: int, batch: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "_batch_id": pa.array([batch] * len(ids), pa.int64())})


@pytest.fixture
def loaded(put: Any) -> None:
    """bronze.rides after batches 1 and 2, each in a file of its own."""
    put("bronze.rides", rides(1, 2, batch=1), batch=1)
    put("bronze.rides", rides(3, batch=2), batch=2, mode=WriteMode.APPEND)


@pytest.mark.parametrize(
    "result",
    [
        "context.inputs['bronze.rides'].arrow()",
        "context.inputs['mobility.bronze.rides'].reader()",
        "context.inputs['bronze.rides'].relation().filter('id > 0')",
        "context.inputs['bronze.rides'].arrow().to_batches()",
        "(batch for batch in context.inputs['bronze.rides'].reader())",
        "context.inputs['bronze.rides'].arrow().combine_chunks().to_batches()[0]",
        "__import__('polars').from_arrow(context.inputs['bronze.rides'].arrow())",
    ],
)
def test_rows_may_be_returned_in_any_form_that_arrow_knows(run: Any, rows: Any, loaded: None, result: str) -> None:
    made = run(f"def step(context):\n    return {result}")
    assert rows("silver.made")["id"].to_pylist() == [1, 2, 3]
    assert (made.rows, made.version) == (3, 0)


def test_a_step_that_returns_nothing_makes_no_table(run: Any, platform: Platform, loaded: None) -> None:
    made = run("def step(context):\n    context.add_figure('seen', 3)")
    assert (made.version, made.committed, made.schema, made.rows) == (None, False, None, 0)
    assert made.figures == {"seen": 3}
    assert made.read_batches == {"mobility.bronze.rides": 2}
    assert open_table(platform.lake.root + "/mobility/silver/made", storage_options={}) is None


def test_a_generator_may_add_figures_while_its_rows_are_written(run: Any, loaded: None) -> None:
    made = run("""
        def step(context):
            for batch in context.inputs["bronze.rides"].reader():
                yield batch
            context.add_figure("done", True)
    """)
    assert made.figures == {"done": True}


def test_relations_of_one_step_can_be_joined(run: Any, rows: Any, put: Any, loaded: None) -> None:
    put("gold.names", pa.table({"id": [1, 3], "name": ["a", "c"]}))
    run(
        """
        def step(context):
            rides, names = (context.inputs[name].relation() for name in ("bronze.rides", "gold.names"))
            return rides.join(names, "id").select("id, name")
        """,
        depends_on=("bronze.rides", "gold.names"),
    )
    assert rows("silver.made").to_pydict() == {"id": [1, 3], "name": ["a", "c"]}


CHANGED = """
    def step(context):
        return context.changed_rows("bronze.rides")
"""


def test_all_rows_have_changed_for_a_step_that_never_succeeded(run: Any, rows: Any, loaded: None) -> None:
    run(CHANGED)
    assert rows("silver.made")["id"].to_pylist() == [1, 2, 3]


def test_changed_rows_are_those_of_later_batches(run: Any, rows: Any, loaded: None) -> None:
    last = LastSuccess(started_at=dt.datetime.now(dt.UTC), read_batches={"mobility.bronze.rides": 1})
    run(CHANGED, last=last)
    assert rows("silver.made")["id"].to_pylist() == [3]


def test_nothing_has_changed_where_no_load_came_since(run: Any, rows: Any, loaded: None) -> None:
    last = LastSuccess(started_at=dt.datetime.now(dt.UTC), read_batches={"mobility.bronze.rides": 2})
    assert run(CHANGED, last=last).rows == 0


def test_files_without_newer_rows_are_not_read(run: Any, rows: Any, loaded: None, platform: Platform) -> None:
    table = open_table(platform.lake.root + "/mobility/bronze/rides", storage_options={})
    assert table is not None
    actions = pa.table(table.get_add_actions(flatten=True))
    oldest = [row["path"] for row in actions.to_pylist() if row["max._batch_id"] == 1]
    for path in oldest:
        (Path(platform.lake.root) / "mobility/bronze/rides" / path).write_bytes(b"not parquet")
    last = LastSuccess(started_at=dt.datetime.now(dt.UTC), read_batches={"mobility.bronze.rides": 1})
    run(CHANGED, last=last)
    assert len(oldest) == 1
    assert rows("silver.made")["id"].to_pylist() == [3]


def test_a_table_without_batches_cannot_tell_what_changed(run: Any, put: Any) -> None:
    put("bronze.rides", pa.table({"id": [1]}))
    with pytest.raises(StepError, match="it has no column _batch_id"):
        run(CHANGED)


def test_an_append_that_was_not_recorded_is_not_repeated_by_the_next(
    run: Any, rows: Any, put: Any, loaded: None
) -> None:
    run(CHANGED, write="append")
    put("bronze.rides", rides(4, batch=3), batch=3, mode=WriteMode.APPEND)
    # The run above committed, but died before its success was recorded: `last` is still None.
    run(CHANGED, write="append", last=None)
    assert rows("silver.made")["id"].to_pylist() == [1, 2, 3, 4]


def test_the_last_success_and_the_variables_reach_the_step(run: Any, loaded: None) -> None:
    began = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    made = run(
        """
        def step(context):
            context.add_figure("last", context.last_success.isoformat())
            context.add_figure("days", context.variables["days"])
        """,
        last=LastSuccess(started_at=began),
        variables={"days": 60},
    )
    assert made.figures == {"last": began.isoformat(), "days": 60}


def test_a_figure_must_be_short(run: Any, loaded: None) -> None:
    with pytest.raises(StepError, match="longer than 500 characters"):
        run("def step(context):\n    context.add_figure('text', 'x' * 501)")
    with pytest.raises(StepError, match="must be a number or a text, not list"):
        run("def step(context):\n    context.add_figure('rows', [1])")


def test_a_file_is_written_beside_the_table_and_replaced_at_once(run: Any, platform: Platform, loaded: None) -> None:
    for content in (b"old", b"new"):
        run(f"def step(context):\n    context.write_file('charts/a.json', {content!r})")
    folder = Path(platform.lake.root) / "mobility/files/made/charts"
    assert [path.name for path in folder.iterdir()] == ["a.json"]
    assert (folder / "a.json").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ".hidden", "", "a//b", "a\\b", "a\x00b"])
def test_a_file_name_that_leads_elsewhere_is_refused(run: Any, loaded: None, name: str) -> None:
    with pytest.raises(StepError, match="is no file name"):
        run(f"def step(context):\n    context.write_file({name!r}, b'')")


def test_an_input_that_is_not_declared_is_refused_with_the_declared_ones(run: Any, loaded: None) -> None:
    with pytest.raises(StepError, match=r"did you mean 'bronze.rides'\?"):
        run("def step(context):\n    return context.inputs['bronze.ride'].arrow()")


@pytest.mark.parametrize(
    "body",
    [
        f"raise ValueError('{SECRET}')",
        f"return {{}}['{SECRET}']",
        f"int('{SECRET}')",
        f"pa.array(['{SECRET}']).cast(pa.int64())",
        f"return context.inputs['bronze.rides'].relation().select(\"cast('{SECRET}' as integer) as x\")",
        f"return (1/0 for _ in ['{SECRET}'])",
    ],
)
def test_an_exception_tells_its_class_and_line_but_no_value(run: Any, loaded: None, body: str) -> None:
    with pytest.raises(StepError) as caught:
        run(f"def step(context):\n    {body}")
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__
    assert "step mobility.silver.made: " in str(caught.value)


def test_the_line_that_is_named_is_the_teams_own(run: Any, loaded: None) -> None:
    with pytest.raises(StepError, match=r"ValueError.*\n  at .*team_module.*\.py:6\n  raise a StepError"):
        run("def step(context):\n    return helper()\ndef helper():\n    return int('x')")


def test_an_exception_that_speaks_of_code_keeps_its_text(run: Any, loaded: None) -> None:
    with pytest.raises(StepError, match="name 'frame' is not defined"):
        run("def step(context):\n    return frame")


def test_the_text_of_an_error_of_ours_passes(run: Any, loaded: None) -> None:
    with pytest.raises(StepError, match=r"step mobility\.silver\.made: the past is too short"):
        run("def step(context):\n    raise StepError('the past is too short')")
    with pytest.raises(SourceError, match="the service is down"):
        run("def step(context):\n    raise SourceError('the service is down')")


def test_an_exception_midway_commits_nothing(run: Any, platform: Platform, loaded: None) -> None:
    with pytest.raises(StepError, match="ZeroDivisionError"):
        run("""
            def step(context):
                for number in range(40):
                    if number == 39:
                        1 / 0
                    yield pa.record_batch({"id": list(range(1000))})
        """)
    assert open_table(platform.lake.root + "/mobility/silver/made", storage_options={}) is None


def test_a_cancelled_step_commits_nothing(run: Any, platform: Platform, loaded: None) -> None:
    asked = iter([False, False, True])
    with pytest.raises(StepError, match="cancelled; nothing was written"):
        run(
            "def step(context):\n    for number in range(5):\n        yield pa.record_batch({'id': [number]})",
            on=replace(platform, cancelled=lambda: next(asked)),
        )
    assert open_table(platform.lake.root + "/mobility/silver/made", storage_options={}) is None


@pytest.mark.parametrize("ends", ["return", "yield pa.record_batch({'id': [2]})"])
def test_a_step_that_heeds_the_cancellation_by_ending_its_rows_early_commits_nothing(
    run: Any, platform: Platform, loaded: None, ends: str
) -> None:
    asked = iter([False, False, True, True, True])
    with pytest.raises(StepError, match="cancelled; nothing was written"):
        run(
            f"""
            def step(context):
                yield pa.record_batch({{'id': [1]}})
                if context.cancelled():
                    {ends}
            """,
            on=replace(platform, cancelled=lambda: next(asked)),
        )
    assert open_table(platform.lake.root + "/mobility/silver/made", storage_options={}) is None


def test_a_step_without_rows_that_was_cancelled_has_not_succeeded(run: Any, platform: Platform, loaded: None) -> None:
    with pytest.raises(StepError, match="cancelled; nothing was written"):
        run("def step(context):\n    return None", on=replace(platform, cancelled=lambda: True))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3", "the function returned int"),
        ("return 'text'", "the function returned str"),
        ("return []", "yielded nothing"),
        ("return [1]", "the function yielded int"),
    ],
)
def test_a_result_that_is_no_table_is_refused(run: Any, loaded: None, body: str, said: str) -> None:
    with pytest.raises(StepError, match=said):
        run(f"def step(context):\n    {body}")


def test_a_missing_function_is_named_with_those_there_are(run: Any, loaded: None) -> None:
    with pytest.raises(StepError, match="has no function 'step'\n  functions there: stepp"):
        run("def stepp(context):\n    return None")


def test_a_missing_module_is_named(run: Any, loaded: None) -> None:
    with pytest.raises(StepError, match=r"module 'team_nowhere' cannot be imported\n  ModuleNotFoundError"):
        run("", function="team_nowhere:step")
