"""What may be said of errors of engines and drivers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from platform_core.errors import SourceError, redacted


def raised(work: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda: duckdb.execute("SELECT CAST('Anna' AS INT)").fetchall(), "duckdb.ConversionException (its text"),
        (lambda: pa.array(["Anna"]).cast(pa.int64()), "pyarrow.ArrowInvalid (its text"),
        (lambda: int("Anna"), "ValueError (its text"),
        (lambda: {}["Anna"], "KeyError (its text"),
    ],
)
def test_the_text_of_an_error_that_may_quote_a_row_is_withheld(work: Callable[[], object], expected: str) -> None:
    error = raised(work)
    assert "Anna" in str(error)
    assert redacted(error).startswith(expected)
    assert "Anna" not in redacted(error)


def test_errors_that_speak_of_objects_keep_their_first_line(tmp_path: Path) -> None:
    missing = redacted(raised(lambda: duckdb.execute("SELECT * FROM riders")))
    assert missing == "duckdb.CatalogException: Catalog Error: Table with name riders does not exist!"
    assert redacted(raised(lambda: DeltaTable(tmp_path))).startswith("deltalake.TableNotFoundError: ")
    assert (
        redacted(raised((tmp_path / "x").read_bytes)) == f"FileNotFoundError: No such file or directory: {tmp_path}/x"
    )


def test_our_own_errors_keep_their_text() -> None:
    assert redacted(SourceError("a\n  b")) == "a\n  b"


def test_a_drivers_code_is_kept() -> None:
    class UniqueViolation(Exception):  # noqa: N818
        sqlstate = "23505"

    UniqueViolation.__module__ = "psycopg.errors"
    assert redacted(UniqueViolation("Key (name)=(Anna)")).startswith(
        "psycopg." + UniqueViolation.__qualname__ + " [23505] (its text is withheld"
    )
