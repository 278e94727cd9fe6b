"""Seeing what a load would bring."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import SchemaError, SecretError
from platform_core.operations.preview import preview

ROWS = pa.table(
    {
        "RiderID": pa.array(range(50), pa.uint32()),
        "Name": [f"Anna {i}" for i in range(50)],
        "City": ["Utrecht"] * 50,
    }
)
COLUMNS = {"Name": {"mask": "full"}, "city": {"personal": True}}


@pytest.fixture
def riders(loads: Any, source: Any) -> Any:
    loads.spec = {"mode": "full", "key": ("rider_id",), "columns": COLUMNS}
    source.rows["riders"] = ROWS
    return loads


def seen(loads: Any, **options: Any) -> Any:
    return preview(loads.declared(), connection=loads.connection, platform=loads.platform, **options)


def test_the_first_rows_are_shown_masked_with_their_columns(riders: Any, source: Any) -> None:
    found = seen(riders)
    assert found.rows.num_rows == 20
    assert found.rows.to_pylist()[19] == {"rider_id": 19, "name": "***", "city": "Utrecht"}
    assert [(c.name, c.source, str(c.source_type), str(c.type), c.mask, c.personal) for c in found.columns] == [
        ("rider_id", "RiderID", "uint32", "int64", None, False),
        ("name", "Name", "string", "string", "full", True),
        ("city", "City", "string", "string", None, True),
    ]
    assert source.closed == 1


def test_nothing_is_written_and_no_lease_is_asked_for(riders: Any) -> None:
    before = sorted(riders.folder.rglob("*"))
    seen(riders, rows=3)
    assert sorted(riders.folder.rglob("*")) == before


def test_the_masking_key_is_needed(riders: Any) -> None:
    (riders.folder / "secrets" / "crm" / "masking_key").unlink()
    riders.spec["columns"] = {"Name": {"mask": "hash", "domain": "text"}}
    with pytest.raises(SecretError):
        seen(riders)


def test_it_says_what_a_load_would_change(riders: Any, source: Any) -> None:
    riders.load()
    source.rows["riders"] = ROWS.rename_columns(["RiderID", "Name", "Town"]).append_column("Age", pa.array([30] * 50))
    riders.spec["columns"] = {"Name": {"mask": "full"}, "Town": {}, "Age": {}}
    riders.spec["schema"] = {"missing": "null"}
    assert [(c.name, c.change) for c in seen(riders).columns] == [
        ("rider_id", ""),
        ("name", ""),
        ("city", "missing"),
        ("town", "added"),
        ("age", "added"),
    ]
    riders.spec["schema"] = {"missing": "null", "new_columns": "ignore"}
    assert [(c.name, c.type) for c in seen(riders).columns if c.change == "ignored"] == [("town", None), ("age", None)]


def test_unclassified_columns_are_not_shown(riders: Any, source: Any) -> None:
    riders.load()
    source.rows["riders"] = ROWS.append_column("phone", pa.array(["+31612345678"] * 50))
    with pytest.raises(SchemaError, match="each must be classified first") as caught:
        seen(riders)
    assert "+316" not in str(caught.value)


def test_a_source_of_few_rows_is_shown_whole(riders: Any, source: Any) -> None:
    source.rows["riders"] = ROWS.slice(0, 2)
    assert seen(riders).rows.num_rows == 2
