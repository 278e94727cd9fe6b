"""Names of columns, from the source to the lake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import SchemaError
from platform_core.lake.column_names import ColumnNames, source_names
from platform_core.specs.column_names import LONGEST_NAME, RESERVED_NAMES, normalised

NAMES = {
    "customer_id": "customer_id",
    "CustomerID": "customer_id",
    "CUSTOMER ID": "customer_id",
    "customer-id": "customer_id",
    "  customer id ": "customer_id",
    "customerIDs": "customer_ids",
    "HTTPServer": "http_server",
    "Q1Sales": "q1_sales",
    "2nd": "_2nd",
    "_private": "_private",
    "address__city": "address__city",
    "Größe": "größe",
    "E\u0301tat": "état",
    "ｆｕｌｌ": "full",
    "Total (€)": "total",
    "select": "select",
    "_is_current": "_is_current_source",
    "_Batch_ID": "_batch_id_source",
    "_valid_from": "_valid_from_source",
    "file_row_number": "file_row_number_source",
}


@pytest.mark.parametrize("name", NAMES)
def test_b6_a_name_becomes_what_is_expected(name: str) -> None:
    assert normalised(name) == NAMES[name]


def test_b6_a_long_name_is_cut_and_told_apart_by_a_hash_of_the_whole() -> None:
    first, second = normalised("a" * 200), normalised("a" * 201)
    assert len(first) == len(second) == LONGEST_NAME
    assert first != second
    assert normalised("a" * LONGEST_NAME) == "a" * LONGEST_NAME


@pytest.mark.parametrize("name", ["", " ", "%", "---", "_", "\u200b"])
def test_b6_a_name_of_neither_letter_nor_digit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="neither letter nor digit"):
        normalised(name)


@given(st.text(max_size=300))
def test_b6_every_result_is_clean_and_stays_as_it_is(name: str) -> None:
    try:
        kept = normalised(name)
    except ValueError:
        assert not any(character.isalnum() for character in name)
        return
    assert normalised(kept) == kept
    assert kept == kept.lower()
    assert 0 < len(kept) <= LONGEST_NAME
    assert kept not in RESERVED_NAMES
    assert not kept[0].isdigit()
    assert not set(kept) & set(' ,;{}()\n\t="`.')


def test_b6_a_collision_names_both_columns() -> None:
    with pytest.raises(SchemaError, match=r"t: the source's columns 'Order ID' and 'orderId' would both be 'order_id'"):
        ColumnNames.of(["Order ID", "name", "orderId"], of="t")


def test_a_declared_name_means_the_column_of_that_name_before_that_of_its_lake_name() -> None:
    given = ["Order ID", "Name"]
    assert source_names(["order_id", "Name"], given, of="t") == {"order_id": "Order ID", "Name": "Name"}
    with pytest.raises(
        SchemaError, match=r"t has no column nmae, x\n  columns: Order ID, Name\n  did you mean 'name'\?"
    ):
        source_names(["x", "nmae"], given, of="t")
