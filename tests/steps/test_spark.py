"""Steps of kind spark: the session comes from the environment, the rows go the way of every step.

Spark itself is stood in for at its own interface: a session, its frames, and `toArrow`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from platform_core.engines.spark_sessions import ConnectSpark, ConnectSparkOptions, LocalSpark, LocalSparkOptions
from platform_core.errors import PluginError, StepError
from platform_core.operations.platform import Platform
from platform_core.operations.process import StepResult
from platform_core.plugins import registry
from platform_core.plugins.interfaces import NoOptions, Secret, SparkSessions
from platform_core.specs.environment import PluginChoice

MODULE = "spark_features"
PERSON = "ada@example.org"
RIDES = pa.table({"id": [1, 2]})


class Frame:
    """As much of a Spark frame as a step's result is asked for."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def toArrow(self) -> pa.Table:  # noqa: N802 - Spark's name
        return self.rows


class Session:
    """As much of a Spark session as a team's function uses here."""

    def createDataFrame(self, rows: pa.Table) -> Frame:  # noqa: N802 - Spark's name
        return Frame(rows)


@dataclass
class Provider(SparkSessions):
    """Counts sessions that are out."""

    out: int = 0
    names: list[str] = field(default_factory=list)
    Options = NoOptions

    def __call__(self, options: Any, *, secret: Callable[[str], Secret]) -> Provider:
        return self

    def open(self, *, name: str) -> Session:
        self.out += 1
        self.names.append(name)
        return Session()

    def close(self, session: Session) -> None:
        self.out -= 1


@dataclass(frozen=True)
class Installed:
    """What an entry point looks like to the registry."""

    plugin: Any

    def load(self) -> Any:
        return self.plugin


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    made = Provider()
    monkeypatch.setattr(registry, "_entries", lambda kind: {"stand_in": Installed(made)} if kind == "spark" else {})
    registry.plugin.cache_clear()
    yield made
    registry.plugin.cache_clear()


@pytest.fixture
def step(
    run: Callable[..., StepResult], platform: Platform, put: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., StepResult]:
    """Run a function as a Spark step of bronze.rides."""
    put("bronze.rides", RIDES)
    environment = platform.environment.model_copy(update={"spark": PluginChoice(type="stand_in")})

    def run_function(function: Callable[[Any, Any], Any], *, on: Platform | None = None) -> StepResult:
        module = ModuleType(MODULE)
        module.step = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, MODULE, module)
        chosen = on or replace(platform, environment=environment)
        return run(on=chosen, kind="spark", function=f"{MODULE}:step", notebook=None)

    return run_function


def test_a_function_is_given_a_session_and_its_frame_becomes_the_table(
    step: Callable[..., StepResult], provider: Provider, rows: Any
) -> None:
    made = step(lambda context, spark: spark.createDataFrame(context.inputs["bronze.rides"].arrow()))
    assert rows("silver.forecast").to_pydict() == {"id": [1, 2]}
    assert (made.rows, provider.names, provider.out) == (2, ["mobility.silver.forecast"], 0)


def test_it_may_return_what_a_python_step_may(step: Callable[..., StepResult], provider: Provider, rows: Any) -> None:
    step(lambda context, spark: context.inputs["bronze.rides"].reader())
    assert rows("silver.forecast").num_rows == 2


def test_an_error_of_spark_is_told_without_its_text_and_the_session_given_back(
    step: Callable[..., StepResult], provider: Provider
) -> None:
    def fails(context: Any, spark: Any) -> Any:
        raise RuntimeError(PERSON)

    with pytest.raises(StepError, match="RuntimeError") as caught:
        step(fails)
    assert PERSON not in str(caught.value)
    assert provider.out == 0


def test_a_spark_that_cannot_be_reached_is_told_without_its_address(
    step: Callable[..., StepResult], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Provider, *, name: str) -> Session:
        raise RuntimeError("sc://host/;token=t0ps3cret")

    monkeypatch.setattr(Provider, "open", refuse)
    with pytest.raises(StepError, match=r"Spark \(stand_in\) gives no session") as caught:
        step(lambda context, spark: None)
    assert "t0ps3cret" not in str(caught.value)


def test_an_environment_without_spark_says_how_to_get_one(step: Callable[..., StepResult], platform: Platform) -> None:
    with pytest.raises(PluginError, match=r"names no Spark\n  declare one .* spark: \{type: local\}"):
        step(lambda context, spark: None, on=platform)


def test_an_unknown_spark_is_told_with_those_there_are(
    step: Callable[..., StepResult], provider: Provider, platform: Platform
) -> None:
    environment = platform.environment.model_copy(update={"spark": PluginChoice(type="stand_inn")})
    with pytest.raises(PluginError, match="unknown spark 'stand_inn'\n  known sparks: stand_in\n  did you mean"):
        step(lambda context, spark: None, on=replace(platform, environment=environment))


def no_secret(name: str) -> Secret:
    raise AssertionError(name)


def test_without_pyspark_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    for kind, options in ((LocalSpark, LocalSparkOptions()), (ConnectSpark, ConnectSparkOptions(url="sc://host"))):
        with pytest.raises(PluginError, match=r"needs pyspark\n  install it: pip install"):
            kind(options, secret=no_secret).open(name="a")


def test_without_java_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", ModuleType("pyspark.sql"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(PluginError, match="Spark needs Java 17 or newer, and there is none"):
        LocalSpark(LocalSparkOptions(), secret=no_secret).open(name="a")


class Builder:
    """Spark Connect's own builder, up to the address."""

    def __init__(self) -> None:
        self.address = ""

    def appName(self, name: str) -> Builder:  # noqa: N802 - Spark's name
        return self

    def remote(self, address: str) -> Builder:
        self.address = address
        return self

    def create(self) -> str:
        return "session"


@pytest.mark.parametrize("url", ["sc://host:15002", "sc://host:15002/;", "sc://host:15002/;use_ssl=true"])
def test_the_token_of_a_server_comes_from_the_secret_store(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    builder = Builder()
    module = ModuleType("pyspark.sql")
    module.SparkSession = type("SparkSession", (), {"builder": builder})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyspark.sql", module)
    options = ConnectSparkOptions(url=url, token={"secret": "mobility/spark"})
    made = ConnectSpark(options, secret=lambda name: Secret(name, b"t0ps3cret"))
    assert made.open(name="a") == "session"
    parts = builder.address.removeprefix("sc://host:15002/;").split(";")
    assert [part for part in parts if part] in (["token=t0ps3cret"], ["use_ssl=true", "token=t0ps3cret"])


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (ConnectSparkOptions, {"url": "https://host"}),
        (ConnectSparkOptions, {"url": "sc://host/;token=t0ps3cret"}),
        (LocalSparkOptions, {"master": "spark://host:7077"}),
    ],
)
def test_options_that_lead_elsewhere_are_refused(model: Any, options: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        model(**options)
    assert "t0ps3cret" not in str(caught.value)
