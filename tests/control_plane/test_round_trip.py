"""Whatever can be declared comes back from the control tables as it was declared."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_core.control.plan.declared import STATE, manifest_rows
from platform_core.control.store.codec import codec
from platform_core.control.store.kinds import KINDS, all_specs, in_order
from platform_core.control.store.rows import read_manifest
from platform_core.control.store.tables import SPEC_TABLES
from platform_core.errors import PlanError
from platform_core.specs.alerts import AlertEvent, AlertRule, QuietHours, Severity
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.ingestion import (
    ColumnSpec,
    DetectDeletes,
    IngestionSpec,
    LoadMode,
    MaskingRule,
    MissingColumns,
    NewColumns,
    OnBadKey,
    SchemaContract,
    TypeChange,
)
from platform_core.specs.location import LocationSpec, ScheduleSpec, WorkstreamSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec, StepKind, WriteMode
from platform_core.specs.refresh import RefreshSpec
from platform_core.specs.step_kinds import NEEDS, Compare
from platform_core.specs.upkeep import Operation, UpkeepSpec
from platform_core.specs.variable import VariableSpec
from tests.control_plane.conftest import Project
from tests.examples import examples

ROOT = Path("/srv/locations/crm")

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in ("main", "temp"))
# A reference is what it stands for, wherever it stands: see the tests of folders.
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00$"), max_size=12)
columns = st.text(st.characters(categories=("L", "Nd"), include_characters=" -_'\""), min_size=1, max_size=8).filter(
    lambda name: name.strip() and not name.startswith("_")
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
plain = st.dictionaries(
    texts,
    st.recursive(
        scalars | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=4,
    ),
    max_size=3,
)
spans = st.builds(
    lambda count, unit: dt.timedelta(**{unit: count}),
    st.integers(0, 999_999),
    st.sampled_from(["seconds", "minutes", "hours", "days", "weeks"]),
)
tags = st.dictionaries(names, names, max_size=2)
owners = st.lists(st.builds("team:{}".format, names), max_size=2).map(tuple)
tables = st.lists(st.builds("{}.{}".format, names, names), min_size=1, max_size=3, unique=True).map(tuple)
rules = st.builds(MaskingRule, mask=names, options=plain)
column_specs = st.dictionaries(
    columns, st.builds(ColumnSpec, description=texts, personal=st.booleans(), masking=st.none() | rules), max_size=3
)
contracts = st.builds(
    SchemaContract,
    new_columns=st.sampled_from(NewColumns),
    missing=st.sampled_from(MissingColumns),
    type_change=st.sampled_from(TypeChange),
)


@st.composite
def ingestions(draw: st.DrawFn, workstream: str) -> IngestionSpec:
    mode = draw(st.sampled_from(LoadMode))
    fields: dict[str, Any] = {}
    if mode is not LoadMode.APPEND:
        fields["key"] = tuple(draw(st.lists(columns, min_size=1, max_size=2, unique=True)))
        fields["snapshot_history"] = draw(st.booleans())
    if mode is LoadMode.INCREMENTAL:
        fields["cursor"] = "changed_at"
        fields["lookback"] = draw(spans)
        fields["detect_deletes"] = draw(st.none() | st.builds(DetectDeletes, every=spans))
    if draw(st.booleans()):
        fields |= {"parallel": draw(st.integers(2, 32)), "split_by": draw(columns)}
    return IngestionSpec(
        workstream=workstream,
        source=draw(names),
        object=draw(texts.filter(len)),
        table=draw(names),
        mode=mode,
        select=tuple(draw(st.lists(columns, max_size=2, unique=True))),
        filter=draw(st.none() | texts),
        max_delete_ratio=draw(st.floats(0, 1)),
        delete_floor=draw(st.integers(0, 2**31)),
        on_bad_key=draw(st.sampled_from(OnBadKey)),
        schema=draw(contracts),
        columns=draw(column_specs.filter(lambda found: "changed_at" not in found)),
        options=draw(plain),
        description=draw(texts),
        tags=draw(tags),
        owners=draw(owners),
        isolated=draw(st.booleans()),
        **fields,
    )


@st.composite
def external_assets(draw: st.DrawFn, workstream: str) -> ProcessingSpec:
    fields: dict[str, Any] = {}
    if draw(st.booleans()):
        fields = {"source": draw(names), "object": draw(texts), "compare": draw(st.sampled_from(Compare))}
    return ProcessingSpec(
        workstream=workstream,
        layer="external",
        name=draw(names),
        kind="external",
        fresh=draw(st.none() | spans),
        every=draw(st.none() | spans.filter(lambda span: span >= dt.timedelta(seconds=30))),
        owners=draw(owners),
        **fields,
    )


@st.composite
def steps(draw: st.DrawFn, workstream: str) -> ProcessingSpec:
    kind = draw(st.sampled_from(StepKind))
    if kind is StepKind.EXTERNAL:
        return draw(external_assets(workstream))
    write = draw(st.sampled_from(WriteMode))
    return ProcessingSpec(
        workstream=workstream,
        layer=draw(st.sampled_from(["silver", "gold"])),
        name=draw(names),
        kind=kind,
        **{NEEDS[kind]: draw(texts)},
        depends_on=draw(tables),
        write=write,
        key=("id",),
        partition_by=("day",) if write is WriteMode.PARTITION else (),
        variables=draw(plain),
        description=draw(texts),
        tags=draw(tags),
        owners=draw(owners),
    )


@st.composite
def policies(draw: st.DrawFn, workstream: str) -> UpkeepSpec:
    operation = draw(st.sampled_from(Operation))
    fields: dict[str, Any] = {}
    if operation is Operation.COMPACT:
        fields = {"target_size": draw(st.integers(1, 2**40)), "z_order": {"crm.bronze.a": ("id",)}}
    elif draw(st.booleans()):
        fields = {"retention": draw(st.integers(1, 99)) * dt.timedelta(days=1)}
    return UpkeepSpec(workstream=workstream, name=draw(names), operation=operation, owners=draw(owners), **fields)


hours = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
at_least_a_minute = spans.filter(lambda span: span >= dt.timedelta(minutes=1))


@st.composite
def quiet_hours(draw: st.DrawFn) -> QuietHours:
    start = draw(hours)
    fields = {"from": start, "until": draw(hours.filter(lambda until: until != start)), "timezone": draw(texts)}
    return QuietHours(**fields, below=draw(st.sampled_from([Severity.WARNING, Severity.ERROR, Severity.CRITICAL])))


@st.composite
def alert_rules(draw: st.DrawFn, workstream: str) -> AlertRule:
    events = tuple(draw(st.lists(st.sampled_from(AlertEvent), min_size=1, unique=True)))
    return AlertRule(
        workstream=workstream,
        name=draw(names),
        events=events,
        channels=tuple(draw(st.lists(names, min_size=1, max_size=2, unique=True))),
        owners=tuple(dict.fromkeys(draw(owners))),
        severity=draw(st.none() | st.sampled_from(Severity)),
        at_least=draw(st.sampled_from(Severity)),
        quiet_hours=draw(st.none() | quiet_hours()),
        remind=draw(st.none() | at_least_a_minute),
        late_after=draw(st.none() | at_least_a_minute) if AlertEvent.LATE in events else None,
        stale_after=draw(at_least_a_minute) if AlertEvent.STALE in events else None,
        description=draw(texts),
    )


def unique(specs: st.SearchStrategy[Any], kind: str) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(specs, max_size=2, unique_by=KINDS[kind].address).map(tuple)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    workstream = draw(names)
    return Manifest(
        root=ROOT,
        location=LocationSpec(
            name=draw(names),
            description=draw(texts),
            workstreams=(
                WorkstreamSpec(
                    name=workstream,
                    description=draw(texts),
                    owners=("team:x",),
                    schedule=draw(st.none() | st.builds(ScheduleSpec, cron=texts, timezone=texts)),
                ),
            ),
        ),
        variables=draw(
            unique(
                st.builds(
                    VariableSpec,
                    name=names,
                    default=scalars | texts,
                    values=st.dictionaries(names, texts | st.integers(-9, 9) | st.booleans(), max_size=2),
                ),
                "variable",
            )
        ),
        connections=draw(
            unique(
                st.builds(
                    ConnectionSpec,
                    name=names,
                    workstream=st.just(workstream),
                    type=names,
                    max_concurrent=st.none() | st.integers(1, 9),
                    options=plain,
                ),
                "connection",
            )
        ),
        ingestions=draw(unique(ingestions(workstream), "ingestion")),
        steps=draw(unique(steps(workstream), "processing")),
        dbt=draw(
            unique(
                st.builds(DbtSpec, workstream=st.just(workstream), name=names, project=texts, target=st.none()), "dbt"
            )
        ),
        refreshes=draw(
            unique(
                st.builds(
                    RefreshSpec, workstream=st.just(workstream), name=names, type=names, shows=tables, options=plain
                ),
                "refresh",
            )
        ),
        upkeep=draw(unique(policies(workstream), "upkeep")),
        alerts=draw(unique(alert_rules(workstream), "alert")),
    )


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(manifest=manifests())
@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_spec_comes_back_from_its_row(manifest: Manifest) -> None:
    for kind, spec in all_specs(manifest):
        rows = codec(kind)
        row = rows.encode(spec, root=ROOT, state=STATE)
        found = rows.decode(row, root=ROOT, state=STATE)
        assert found == (spec.model_copy(update=dict.fromkeys(kind.parts, ())) if kind.parts else spec)
        assert rows.row(rows.content(row)) == row
        assert rows.normal(row) == row
        assert rows.digest(row) == rows.digest(rows.encode(found, root=ROOT, state=STATE))


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(manifest=manifests())
@settings(
    max_examples=examples(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_manifest_comes_back_from_the_tables(project: Project, manifest: Manifest) -> None:
    rows = manifest_rows(manifest)

    def write_and_read(connection: sa.Connection) -> Manifest:
        for key, row in rows.items():
            rows_of = codec(KINDS[key.kind])
            values = {"workstream": rows_of.workstream(row), **dict(zip(rows_of.names, row, strict=True))}
            connection.execute(SPEC_TABLES[key.kind].insert().values(location=key.location, **values))
        found = read_manifest(connection, manifest.location.name, root=ROOT, state=STATE)
        for table in SPEC_TABLES.values():
            connection.execute(table.delete())
        return found

    found = project.store().change(write_and_read)
    assert found == in_order(manifest)
    # 1 and 1.0 are equal, and so are mappings in another order: as texts they are not.
    assert manifest_rows(found) == rows


def test_what_git_declares_comes_back_from_the_tables(applied: Project) -> None:
    from platform_core.control.load import load_manifest

    declared = load_manifest(applied.folder / "crm/control", environment="dev", state=applied.folder / "state")
    found = applied.manifest("crm")
    assert found.model_dump() == in_order(declared).model_dump()


def test_folders_are_those_of_the_machine_that_reads(applied: Project) -> None:
    found = {spec.name: spec.options for spec in applied.manifest("crm").connections}
    assert found == {
        "crm": {"path": str(applied.folder / "state" / "crm.db")},
        "lists": {"root": str(applied.folder / "crm" / "lists")},
    }


@pytest.mark.parametrize("text", ["a\x00b", "half \ud800"])
def test_a_character_that_a_database_cannot_keep_is_refused(text: str) -> None:
    spec = DbtSpec(workstream="crm", name="shop", project=text)
    with pytest.raises(PlanError, match=r"dbt crm\.shop: 'project' holds a character"):
        codec(KINDS["dbt"]).encode(spec, root=ROOT, state=STATE)


def test_a_new_default_of_a_nested_part_changes_no_row() -> None:
    spec = IngestionSpec(
        workstream="crm",
        source="crm",
        object="a",
        table="a",
        mode=LoadMode.FULL,
        key=("id",),
        columns={"c": ColumnSpec()},
    )
    rows = codec(KINDS["ingestion"])
    assert rows.content(rows.encode(spec, root=ROOT, state=STATE))["columns"] == {"c": {}}
