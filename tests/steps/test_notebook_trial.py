"""The same notebook while a person develops it: inputs as of now, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from platform_core import StepError, notebook_step
from platform_core.lake.delta import write
from platform_core.operations.notebook_trial import Tried, TriedStep
from platform_core.operations.notebook_wire import ADDRESS_VARIABLE
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef
from tests.steps.notebooks import notebook, save

NAME = "mobility.silver.forecast"
RIDES = TableRef("mobility", "bronze", "rides")
FILES = {
    "workspace.yaml": "load_from:\n  - python_module: {module_name: tried_team.definitions, location_name: tried, "
    "working_directory: .}\n",
    "dagster_home/environments/dev.yaml": "lake: {root: lake}\nsecrets: {type: environment}\n",
    "tried_team/__init__.py": "",
    "tried_team/definitions.py": "",
    "tried_team/control/location.yaml": "location: tried\nworkstreams: [{name: mobility, owners: [team:mobility]}]\n",
    "tried_team/control/connections.yaml": "connections: [{name: erp, type: sqlite, path: /erp.db}]\n",
    "tried_team/control/ingestion/erp.yaml": "source: erp\ntables: [{object: rides, mode: full, key: [id]}]\n",
    "tried_team/control/processing.yaml": """\
steps:
  - name: forecast
    layer: silver
    kind: notebook
    notebook: notebooks/forecast.ipynb
    depends_on: [bronze.rides]
    variables: {horizon: 14}
""",
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one notebook, seen from the folder in which the notebook lies, as a kernel would see it."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    file = save(tmp_path / "tried_team/notebooks/forecast.ipynb", notebook(parameters="horizon = 1"))
    for name in ("EDP_PROJECT", "DAGSTER_HOME", "EDP_STATE", "EDP_ENVIRONMENT", "EDP_USER", ADDRESS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(file.parent)
    return tmp_path


@pytest.fixture
def lake(project: Path) -> Path:
    """The lake with bronze.rides after two batches."""
    root = project / ".edp" / "lake"
    for number, ids in ((1, [1, 2]), (2, [3])):
        rows = pa.table({"id": ids, "_batch_id": pa.array([number] * len(ids), pa.int64())})
        uri = "/".join((str(root), *RIDES))
        write(rows.to_reader(), table=RIDES, uri=uri, storage_options={}, mode=WriteMode.APPEND, batch=number)
    return root


def test_a_notebook_reads_what_a_run_would_read(lake: Path) -> None:
    step = notebook_step(NAME)
    assert isinstance(step, TriedStep)
    assert sorted(step.inputs["bronze.rides"].arrow()["id"].to_pylist()) == [1, 2, 3]
    assert step.last_success is None
    assert step.changed_rows("bronze.rides").read_all().num_rows == 3
    assert step.inputs["bronze.rides"].relation().filter("id > 1").fetchall() != []
    step.close()


def test_changed_rows_can_be_tried_from_a_batch_on(lake: Path) -> None:
    step = notebook_step(NAME, read_batches={"bronze.rides": 1})
    assert step.changed_rows("bronze.rides").read_all()["id"].to_pylist() == [3]


def test_a_result_is_shown_and_nothing_is_written(lake: Path, project: Path) -> None:
    step = notebook_step(NAME)
    assert isinstance(step, TriedStep)
    made = step.result(step.inputs["bronze.rides"].arrow())
    assert isinstance(made, Tried)
    assert repr(made) == "3 rows (id int64, _batch_id int64); nothing was written: a run of the step writes them"
    assert "not written" in step.write_file("chart.svg", b"<svg/>")
    assert sorted(path.name for path in lake.rglob("*") if path.is_dir()) == [
        "_delta_log",
        "bronze",
        "mobility",
        "rides",
    ]


def test_what_is_no_result_of_a_run_is_none_here(lake: Path) -> None:
    with pytest.raises(StepError, match="returned dict"):
        notebook_step(NAME).result({"id": [1]})


def test_a_step_that_nobody_declares_is_told_with_those_there_are() -> None:
    with pytest.raises(StepError, match=r"no step 'mobility\.silver\.forcast'.*\n  known: mobility\.silver\.forecast"):
        notebook_step("mobility.silver.forcast")


def test_a_table_that_is_not_there_yet_is_told() -> None:
    with pytest.raises(StepError, match=r"table mobility\.bronze\.rides does not exist yet\n  looked at"):
        notebook_step(NAME)
