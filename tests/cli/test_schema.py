"""``edp schema``."""

from __future__ import annotations

import json

from platform_core.control.shapes import KIND_NAMES


def test_a_schema_is_written_for_every_kind(project, call) -> None:
    assert call("schema").exit_code == 0
    written = {file.stem for file in (project / "schemas").iterdir()}
    assert written == {*KIND_NAMES, "environment"}
    masks = json.dumps(json.loads((project / "schemas/ingestion.json").read_text())["$defs"]["ColumnSpec"])
    assert '{"const": "hash"}' in masks


def test_check_tells_which_schema_is_old_and_writes_nothing(project, call) -> None:
    call("schema")
    assert call("schema", "--check").exit_code == 0
    old, left_over = project / "schemas/refresh.json", project / "schemas/removed.json"
    old.write_text("{}")
    left_over.write_text("{}")
    result = call("schema", "--check")
    assert result.exit_code == 1
    assert result.output == (
        "schemas/refresh.json is not up to date\n"
        "schemas/removed.json is not up to date\n"
        "  run `edp schema` and commit the result\n"
    )
    assert old.read_text() == "{}"
    call("schema")
    assert not left_over.exists()
    assert call("schema", "--check").exit_code == 0
