"""docs/how-to/step-kinds.md, word for word: every example in it can be declared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from platform_core.control.load import load_manifest
from platform_core.engines.spark_sessions import ConnectSpark, LocalSpark
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.processing import StepKind
from tests.conftest import PROJECT
from tests.steps.notebooks import notebook, save

PAGE = (PROJECT / "docs" / "how-to" / "step-kinds.md").read_text(encoding="utf-8")
YAML = dict(re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MORE = """
steps:
  - {name: rides, layer: silver, kind: sql, sql: sql/rides.sql}
"""


def test_what_the_page_shows_can_be_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "mobility"
    files = {name: text for name, text in YAML.items() if name.startswith("control/")}
    files["control/location.yaml"] = "location: mobility\nworkstreams: [{name: mobility, owners: [team:mobility]}]\n"
    files["control/processing/rides.yaml"] = MORE
    files["sql/rides.sql"] = "SELECT 1 AS one\n"
    files["sql/prices.sql"] = "SELECT * FROM external.targets\n"
    files["__init__.py"] = ""
    parameters, begin, end, function = PYTHON
    files["features.py"] = function
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    save(root / "notebooks/forecast.ipynb", notebook(begin, end, parameters=parameters))
    steps = {spec.name: spec for spec in load_manifest(root / "control", environment="dev", state=tmp_path).steps}
    assert {spec.kind for spec in steps.values()} == {*StepKind} - {StepKind.PYTHON}
    assert steps["prices"].depends_on == ("external.targets", "external.tariffs")


@pytest.mark.parametrize(("name", "provider"), [("dev", LocalSpark), ("prod", ConnectSpark)])
def test_the_environments_of_the_page_name_a_spark(name: str, provider: type[LocalSpark] | type[ConnectSpark]) -> None:
    import yaml

    declared = yaml.safe_load(YAML[f"dagster_home/environments/{name}.yaml"])
    spec = EnvironmentSpec(name=name, lake={"root": "lake"}, secrets={"type": "environment"}, **declared)
    assert spec.spark is not None
    assert spec.spark.type == provider.__name__.removesuffix("Spark").lower()
    provider.Options(**spec.spark.options)


def test_the_page_names_every_kind() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) >= {*StepKind}
