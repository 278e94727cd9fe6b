"""Steps of kind notebook, executed by a real kernel."""

from __future__ import annotations

import datetime as dt
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from platform_core.errors import PluginError, StepError
from platform_core.operations import notebook_step
from platform_core.operations.platform import Platform
from platform_core.operations.process import LastSuccess, StepResult
from tests.steps.notebooks import notebook, save

RIDES = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "_batch_id": pa.array([1, 1, 2], pa.int64())})
PERSON = "ada@example.org"
TOKEN = "t0ps3cret"
FILE = "notebooks/forecast.ipynb"

RUN_BEFORE = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)

Run = Callable[..., StepResult]
Rows = Callable[[str], pa.Table | None]

BEGIN = """
from platform_core import notebook_step
step = notebook_step("mobility.silver.forecast")
"""


@pytest.fixture(autouse=True)
def rides(put: Callable[..., int]) -> None:
    put("bronze.rides", RIDES, batch=2)


def copies(platform: Platform) -> list[Path]:
    return list((platform.state / "notebooks").rglob("*.ipynb"))


def kernels() -> list[psutil.Process]:
    """Processes of notebooks that this process has started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "notebook_process" in line or "ipykernel" in line:
            found.append(child)
    return found


def test_a_notebook_is_executed_and_its_rows_become_the_table(
    run: Run, rows: Rows, package: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDP_SECRET_OF_THE_PLATFORM", TOKEN)
    (package / "features.py").write_text("def doubled(value):\n    return value * 2\n")
    shown = """
        import os
        from mobility_team.features import doubled
        changed = step.changed_rows("bronze.rides").read_all()
        print(sorted(name for name in os.environ if name.startswith("EDP_SECRET")))
        print(os.path.basename(os.getcwd()), step.last_success.year, step.variables)
    """
    handed_over = """
        import pyarrow as pa
        step.add_figure("changed", changed.num_rows)
        step.write_file("charts/forecast.txt", b"up")
        both = step.inputs["bronze.rides"].relation().join(step.inputs["mobility.bronze.rides"].relation(), "id")
        ids = both.select("id").to_arrow_table()["id"].to_pylist()
        step.result(pa.table({"id": ids, "horizon": [doubled(horizon)] * len(ids)}))
    """
    file = save(package / FILE, notebook(BEGIN, shown, handed_over))
    saved = file.read_bytes()

    last = LastSuccess(started_at=RUN_BEFORE, read_batches={"mobility.bronze.rides": 1})
    result = run(variables={"horizon": 14}, last=last)

    table = rows("silver.forecast")
    assert table is not None
    assert table.to_pydict() == {"id": [1, 2, 3], "horizon": [28, 28, 28]}
    assert (result.rows, result.version, result.figures) == (3, 0, {"changed": 1})
    assert result.read_batches == {"mobility.bronze.rides": 2}
    assert Path(platform.lake.root, "mobility/files/forecast/charts/forecast.txt").read_bytes() == b"up"

    # The copy has the output; the file itself is as a person left it.
    assert result.notebook is not None
    assert copies(platform) == [result.notebook]
    assert result.notebook.is_relative_to(platform.state / "notebooks/mobility/silver/forecast")
    assert stat.S_IMODE(result.notebook.parent.stat().st_mode) == 0o700
    cells = json.loads(result.notebook.read_text())["cells"]
    output = "".join(line for cell in cells for out in cell.get("outputs", ()) for line in out.get("text", ()))
    assert output == "[]\nnotebooks 2026 {'horizon': 14}\n"
    assert TOKEN not in result.notebook.read_text()
    assert file.read_bytes() == saved
    assert kernels() == []


def test_a_cell_that_fails_after_the_rows_were_handed_over_leaves_the_table_as_it_was(
    run: Run, rows: Rows, put: Callable[..., int], package: Path, platform: Platform
) -> None:
    put("silver.forecast", pa.table({"id": [7]}))
    fails = f'step.result(step.inputs["bronze.rides"].arrow())\nraise ValueError("{PERSON}")'
    save(package / FILE, notebook(BEGIN, fails))
    with pytest.raises(StepError) as caught:
        run()
    table = rows("silver.forecast")
    assert table is not None
    assert table.to_pydict() == {"id": [7]}
    (copy,) = copies(platform)
    # Its text may be a value of a row: it stands in the copy, which only this account can read.
    told = str(caught.value)
    assert "cell [3] of the notebook failed\n  ValueError (its text is withheld" in told
    assert told.endswith(f"see {copy}")
    assert PERSON not in told
    assert PERSON in copy.read_text()
    assert kernels() == []


def test_a_run_that_is_cancelled_ends_the_kernel(run: Run, rows: Rows, package: Path, platform: Platform) -> None:
    begun = platform.state.parent / "begun"
    save(package / FILE, notebook(BEGIN, f"open({str(begun)!r}, 'w').close()\nimport time\ntime.sleep(3600)"))
    with pytest.raises(StepError, match="cancelled; nothing was written"):
        run(on=replace(platform, cancelled=begun.exists))
    assert rows("silver.forecast") is None
    assert kernels() == []


def test_without_papermill_it_is_said_what_to_install(run: Run, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(package / FILE, notebook(BEGIN))
    monkeypatch.setattr(notebook_step, "_NEEDS", ("papermill_that_nobody_has", "ipykernel"))
    with pytest.raises(PluginError, match=r"needs papermill_that_nobody_has\n  install the extra 'notebook'"):
        run()


@pytest.mark.parametrize(
    ("path", "said"),
    [("notebooks/gone.ipynb", "there is no notebook"), ("../outside.ipynb", "lies outside")],
)
def test_a_notebook_that_is_not_there_is_told_before_a_kernel_starts(run: Run, path: str, said: str) -> None:
    with pytest.raises(StepError, match=said):
        run(notebook=path)


def test_the_newest_copies_are_kept(tmp_path: Path) -> None:
    for number in range(notebook_step.KEPT + 3):
        (tmp_path / f"20260501T1200{number:02}Z-aa.ipynb").touch()
    notebook_step._keep_newest(tmp_path)
    left = sorted(file.name for file in tmp_path.glob("*.ipynb"))
    assert len(left) == notebook_step.KEPT
    assert left[0] == "20260501T120003Z-aa.ipynb"
