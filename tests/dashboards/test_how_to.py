"""docs/how-to/dashboards.md, word for word: every dashboard and connection in it can be declared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from platform_core.dashboards.page import PageDashboard
from platform_core.dashboards.powerbi import PowerBIDashboard
from platform_core.dashboards.webhook import WebhookDashboard
from platform_core.plugins.interfaces import Dashboard
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.refresh import Cut, RefreshSpec

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "dashboards.md"
TYPES: dict[str, type[Dashboard]] = {"page": PageDashboard, "powerbi": PowerBIDashboard, "webhook": WebhookDashboard}


def declared(kind: str) -> list[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [entry for block in blocks for entry in yaml.safe_load(block).get(kind, ())]


def test_every_dashboard_can_be_declared_with_its_options() -> None:
    fields = RefreshSpec.model_fields.keys()
    cuts = {}
    for entry in declared("dashboards"):
        options = {name: value for name, value in entry.items() if name not in fields}
        known = {name: value for name, value in entry.items() if name in fields}
        spec = RefreshSpec(workstream="mobility", options=options, **known)
        TYPES[spec.type].Options(**spec.options)
        cuts[spec.name] = spec.cut
    assert cuts == {
        "operations": Cut.LATEST,
        "ridership": Cut.CONSISTENT,
        "fleet": Cut.CONSISTENT,
        "portal": Cut.CONSISTENT,
    }


def test_every_connection_can_be_declared_with_its_options() -> None:
    fields = ConnectionSpec.model_fields.keys()
    names = []
    for entry in declared("connections"):
        options = {name: value for name, value in entry.items() if name not in fields}
        spec = ConnectionSpec(workstream="mobility", name=entry["name"], type=entry["type"])
        model = TYPES[spec.type].ConnectionOptions
        assert model is not None
        model(**options)
        names.append(spec.name)
    assert names == ["bi", "portal"]
