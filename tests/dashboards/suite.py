"""What every dashboard plug-in keeps to."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from platform_core.errors import RefreshError
from platform_core.plugins.interfaces import Dashboard, RefreshRequest
from platform_core.plugins.registry import plugin


class DashboardSuite:
    """Inherit, and give the fixtures `working`, `failing`, `request_` and `name`."""

    def test_a_refresh_that_succeeds_returns_flat_figures(self, working: Dashboard, request_: RefreshRequest) -> None:
        result = working.refresh(request_)
        assert re.match(r"(https|file)://", result.url)
        assert result.figures
        assert all(isinstance(value, int | float | str) for value in result.figures.values())

    def test_a_refresh_not_known_to_have_succeeded_raises(self, failing: Dashboard, request_: RefreshRequest) -> None:
        with pytest.raises(RefreshError):
            failing.refresh(request_)

    def test_a_cancelled_run_does_not_succeed(self, working: Dashboard, requests) -> None:
        with pytest.raises(RefreshError, match="cancelled"):
            working.refresh(self.cancelled_request(requests))

    def test_a_second_refresh_succeeds_as_the_first_did(self, working: Dashboard, request_: RefreshRequest) -> None:
        assert working.refresh(request_).url == working.refresh(request_).url

    def test_options_refuse_a_key_they_do_not_know(self, working: Dashboard) -> None:
        declared = working.options.model_dump()
        with pytest.raises(ValidationError, match="colour"):
            type(working).Options(**declared, colour="red")

    def test_options_have_a_schema_for_editors(self, working: Dashboard) -> None:
        assert type(working).Options.model_json_schema()["additionalProperties"] is False

    def test_it_is_found_by_its_entry_point(self, working: Dashboard, name: str) -> None:
        assert plugin("dashboard", name) is type(working)

    def cancelled_request(self, requests) -> RefreshRequest:
        raise NotImplementedError
