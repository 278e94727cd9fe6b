"""What a load lets through of its masks, and what it stops."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import LoadError, SchemaError, SecretError
from platform_core.faults import FaultPoint, InjectedFault, armed
from platform_core.operations.masking import Masking, open_masking
from platform_core.plugins.interfaces import Mask
from platform_core.secrets.files import FileSecrets, create_masking_key
from platform_core.specs.ingestion import ColumnSpec, IngestionSpec, MaskingRule
from platform_core.specs.table import TableRef
from tests.masks.oracle import keyed

RIDERS = TableRef("crm", "bronze", "riders")
ROWS = pa.record_batch({"id": [1, 2], "name": ["Anna", None]})


def spec(masks: dict[str, MaskingRule], *, workstream: str = "crm") -> IngestionSpec:
    return IngestionSpec(
        workstream=workstream,
        source="till",
        object="riders",
        table="riders",
        mode="full",
        key=("id",),
        columns={name: ColumnSpec(masking=rule) for name, rule in masks.items()},
    )


def rule(mask: str, **options: Any) -> MaskingRule:
    return MaskingRule(mask=mask, options=options)


def store(folder: Path) -> FileSecrets:
    return FileSecrets(FileSecrets.Options(path=str(folder)))


class _Mask(Mask):
    def output_type(self, type_: pa.DataType) -> pa.DataType:
        return pa.string()


class Shifting(_Mask):
    """Puts the null elsewhere."""

    def apply(self, values: pa.Array) -> pa.Array:
        return pa.array([None, "***"])


class Losing(_Mask):
    """Hands back fewer values."""

    def apply(self, values: pa.Array) -> pa.Array:
        return pa.array(["***"])


class Numbering(_Mask):
    """Hands back another type than announced."""

    def apply(self, values: pa.Array) -> pa.Array:
        return pa.array([1, None])


class Raising(_Mask):
    """Fails, and tells about whom."""

    def apply(self, values: pa.Array) -> pa.Array:
        raise ValueError(f"cannot mask {values[0]}")


class Emptying(_Mask):
    """Makes values of nulls, and says that it makes nulls."""

    makes_null = True

    def apply(self, values: pa.Array) -> pa.Array:
        return pa.array(["***", "***"])


@pytest.mark.parametrize("kind", [Shifting, Losing, Numbering, Emptying])
def test_a_mask_that_breaks_its_promise_stops_the_load(kind: type[Mask]) -> None:
    with pytest.raises(LoadError, match=r"crm.bronze.riders: the mask of column 'name' lost or made up values"):
        Masking(RIDERS, {"name": kind(None, key=None)}).apply(ROWS)


def test_f2_a_mask_that_fails_tells_no_value() -> None:
    with pytest.raises(LoadError, match=r"the mask of column 'name' failed\n  ValueError") as caught:
        Masking(RIDERS, {"name": Raising(None, key=None)}).apply(ROWS)
    assert "Anna" not in "".join(traceback.format_exception(caught.value))


def test_columns_without_a_mask_stay_as_they_are() -> None:
    assert Masking(RIDERS, {}).apply(ROWS) == ROWS


def test_a_batch_is_a_fault_point() -> None:
    with armed(f"{FaultPoint.MASK_BATCH}:raise"), pytest.raises(InjectedFault):
        Masking(RIDERS, {}).apply(ROWS)


def test_a_type_that_the_mask_cannot_take_is_told_with_its_column() -> None:
    with pytest.raises(SchemaError, match="riders: column 'id': mask hash with domain email cannot take int64"):
        Masking(RIDERS, {"id": keyed("email")}).schema(ROWS.schema)


def test_masks_of_columns_that_are_not_there_are_told() -> None:
    with pytest.raises(SchemaError, match="that the source does not have: email\n  columns: id, name"):
        Masking(RIDERS, {"email": keyed("email")}).schema(ROWS.schema)


def test_a_load_does_not_start_without_a_key_where_a_mask_needs_one(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="'crm/masking_key' is missing"):
        open_masking(spec({"name": rule("hash", domain="text")}), secrets=store(tmp_path))
    assert open_masking(spec({"name": rule("full")}), secrets=store(tmp_path)).masks.keys() == {"name"}


@pytest.mark.parametrize("key", ["0" * 64, "short", "4f" * 32])
def test_a_load_does_not_start_with_a_key_that_is_none(tmp_path: Path, key: str) -> None:
    file = tmp_path / "crm" / "masking_key"
    file.parent.mkdir()
    file.touch(mode=0o600)
    file.write_text(key)
    with pytest.raises(SecretError, match="secret 'crm/masking_key' is"):
        open_masking(spec({"name": rule("hash", domain="text")}), secrets=store(tmp_path))


def test_f8_workstreams_have_keys_and_so_tokens_of_their_own(tmp_path: Path) -> None:
    tokens = []
    for workstream in ("crm", "sales", "crm"):
        create_masking_key(tmp_path, workstream)
        masking = open_masking(
            spec({"name": rule("hash", domain="text")}, workstream=workstream), secrets=store(tmp_path)
        )
        tokens.append(masking.apply(ROWS)["name"][0].as_py())
    assert tokens[0] == tokens[2] != tokens[1]
    assert tokens[0].split(".")[0] != tokens[1].split(".")[0]


def test_every_mask_of_the_platform_opens_by_its_name(tmp_path: Path) -> None:
    create_masking_key(tmp_path, "crm")
    rules = {
        "a": rule("full"),
        "b": rule("partial", keep_first=1),
        "c": rule("hash", domain="email"),
        "d": rule("null"),
        "e": rule("year"),
        "f": rule("truncate", keep=4),
    }
    rows = pa.record_batch({name: ["jan.jansen@example.com", None] for name in rules})
    masked = open_masking(spec(rules), secrets=store(tmp_path)).apply(rows)
    assert "jan.jansen" not in str(masked.to_pydict())
    assert {name: masked[name].null_count for name in rules} == dict.fromkeys(rules, 1) | {"d": 2}
