"""What can be declared: the rules that a spec checks by itself."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from platform_core.errors import Place
from platform_core.specs.base import Duration, Name, Owner, SecretRef, TableName, Tags
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import ColumnSpec, IngestionSpec, MaskingRule, SchemaContract
from platform_core.specs.location import LocationSpec, WorkstreamSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.table import TableRef
from platform_core.specs.variable import VariableSpec

TABLE = {"workstream": "erp", "source": "erp", "object": "orders", "table": "orders"}


def ingestion(**fields: Any) -> IngestionSpec:
    return IngestionSpec(**{**TABLE, "mode": "full", "key": ("id",), **fields})


def step(**fields: Any) -> ProcessingSpec:
    return ProcessingSpec(
        **{"workstream": "erp", "layer": "silver", "name": "a", "kind": "python", "function": "m:f", **fields}
    )


@pytest.mark.parametrize("text", ["a", "a1_b", "a" * 63])
def test_a_name_is_taken(text: str) -> None:
    assert TypeAdapter(Name).validate_python(text) == text


@pytest.mark.parametrize("text", ["", "A", "1a", "_a", "a-b", "a b", "a.b", "é", "a" * 64, "a\n", "а"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(text)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30 seconds", timedelta(seconds=30)),
        ("1 minute", timedelta(minutes=1)),
        ("2hours", timedelta(hours=2)),
        ("7 days", timedelta(days=7)),
        ("1 week", timedelta(weeks=1)),
    ],
)
def test_a_duration_reads_like_speech(text: str, span: timedelta) -> None:
    assert TypeAdapter(Duration).validate_python(text) == span


@pytest.mark.parametrize("text", ["", "2", "hours", "-2 hours", "1.5 hours", "2 months", "9999999 days", "٢ hours"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)


@pytest.mark.parametrize("text", ["team:a", "team:a-b.c", "a.user@example.com"])
def test_an_owner_is_a_team_or_an_address(text: str) -> None:
    assert TypeAdapter(Owner).validate_python(text) == text


@pytest.mark.parametrize("text", ["", "team:", "jane", "@example.com", "a@b", "team: x"])
def test_others_are_no_owners(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Owner).validate_python(text)


@pytest.mark.parametrize("text", ["silver.a", "erp.silver.a"])
def test_a_table_has_two_or_three_parts(text: str) -> None:
    name = TypeAdapter(TableName).validate_python(text)
    assert TableRef.parse(name, workstream="erp") == TableRef("erp", "silver", "a")


@pytest.mark.parametrize("text", ["a", "a.b.c.d", ".a", "a.", "a..b", "Silver.a", "silver.a b", ""])
def test_other_texts_name_no_table(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(TableName).validate_python(text)


@pytest.mark.parametrize("tags", [{"a": "b c"}, {"a b": "c"}, {"": "x"}, {"a": "x" * 64}])
def test_tags_are_what_dagster_takes(tags: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Tags).validate_python(tags)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key": ()}, "mode full needs 'key'"),
        ({"cursor": "at"}, "mode full reads the whole object"),
        ({"mode": "append"}, "mode append has no key"),
        ({"mode": "append", "key": (), "deleted_flag": "gone"}, "mode append never changes a row"),
        ({"lookback": timedelta(hours=1)}, "'lookback' needs 'cursor'"),
        ({"key": ("id", "id")}, "names a column twice"),
        ({"key": ("_row_hash",)}, "column '_row_hash' is added by the platform"),
        ({"columns": {"_is_current": ColumnSpec()}}, "column '_is_current' is added by the platform"),
        (
            {"mode": "incremental", "cursor": "at", "columns": {"at": ColumnSpec(masking=MaskingRule(mask="full"))}},
            "column 'at' orders or flags rows and so cannot be masked",
        ),
        ({"max_delete_ratio": 1.1}, "less than or equal to 1"),
        ({"max_delete_ratio": float("nan")}, "less than or equal to 1"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_an_ingestion_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("(", r"\(")):
        ingestion(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "sql"}, "a step of kind sql needs 'sql'"),
        ({"sql": "a.sql"}, "a step of kind python has no 'sql'"),
        ({"write": "merge"}, "write: merge needs 'key'"),
        ({"layer": "bronze"}, "layer 'bronze' belongs to the platform"),
        ({"layer": "dashboard"}, "layer 'dashboard' belongs to the platform"),
        (
            {"columns": {"x": ColumnSpec(masking=MaskingRule(mask="full"))}},
            "masks are applied when a table is ingested",
        ),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        step(**fields)


def test_a_dbt_project_cannot_write_bronze() -> None:
    with pytest.raises(ValidationError, match="layer 'bronze' belongs to the platform"):
        DbtSpec(workstream="erp", name="a", project="x", layer="bronze")


def test_values_are_not_shown_in_errors() -> None:
    with pytest.raises(ValidationError) as caught:
        SecretRef(secret=["hunter2"])  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


def test_a_spec_is_frozen_and_remembers_its_place() -> None:
    spec = ingestion().at(Place(Path("a.yaml"), 3))
    assert spec.place == Place(Path("a.yaml"), 3)
    with pytest.raises(ValidationError):
        spec.table = "other"  # type: ignore[misc]


def test_a_fingerprint_depends_on_content_and_not_on_place() -> None:
    first = ingestion().at(Place(Path("a.yaml"), 3))
    assert first.fingerprint() == ingestion().at(Place(Path("b.yaml"), 9)).fingerprint()
    assert first.fingerprint() != ingestion(description="x").fingerprint()


def test_a_variable_takes_the_value_of_its_environment_before_the_default() -> None:
    spec = VariableSpec(name="a", default=1, values={"prod": "x"})
    assert spec.resolve("prod") == "x"
    assert spec.resolve("dev") == 1
    assert VariableSpec(name="a").resolve("dev") is None


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        root=Path("/x"),
        location=LocationSpec(name="a", workstreams=(WorkstreamSpec(name="erp", owners=("team:a",)),)),
        connections=(ConnectionSpec(name="c", workstream="erp", type="files"),),
        ingestions=(ingestion(),),
        steps=(step(),),
    )


def test_a_manifest_finds_what_it_holds(manifest: Manifest) -> None:
    assert manifest.connection("erp", "c") is manifest.connections[0]
    assert manifest.workstream("erp") is manifest.location.workstreams[0]
    assert manifest.table(TableRef("erp", "bronze", "orders")) is manifest.ingestions[0]
    assert manifest.table(TableRef("erp", "silver", "a")) is manifest.steps[0]


def test_a_manifest_raises_key_error_for_what_it_does_not_hold(manifest: Manifest) -> None:
    for look in (
        lambda: manifest.connection("erp", "d"),
        lambda: manifest.workstream("hr"),
        lambda: manifest.table(TableRef("erp", "silver", "b")),
    ):
        with pytest.raises(KeyError):
            look()


def test_a_changed_copy_of_a_manifest_finds_its_own(manifest: Manifest) -> None:
    manifest.connection("erp", "c")
    changed = manifest.model_copy(update={"connections": ()})
    with pytest.raises(KeyError):
        changed.connection("erp", "c")
    assert manifest.connection("erp", "c").type == "files"


def test_a_missing_column_may_be_null_with_and_without_quotes() -> None:
    written = [SchemaContract.model_validate({"missing": value}).missing for value in (None, "null", "refuse")]
    assert written == ["null", "null", "refuse"]
