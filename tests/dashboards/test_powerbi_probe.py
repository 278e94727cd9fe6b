"""Asking Power BI whether it lets us in."""

from __future__ import annotations

import pytest

from platform_core.dashboards.page import PageDashboard
from platform_core.errors import RefreshError
from tests.dashboards.powerbi_server import SECRET, Fault, PowerBIServer
from tests.dashboards.test_powerbi import dashboard


def test_it_is_let_in_and_asks_for_no_refresh(service: PowerBIServer) -> None:
    assert dashboard(service).probe()
    assert service.running() == []


def test_a_wrong_secret_is_told_without_it(service: PowerBIServer) -> None:
    with pytest.raises(RefreshError, match="is current") as caught:
        dashboard(service, secret="wrong-canary").probe()
    assert "wrong-canary" not in str(caught.value) and SECRET not in str(caught.value)


def test_a_service_that_lets_nobody_into_the_workspace_is_told(service: PowerBIServer) -> None:
    service.order("list", Fault(status=403))
    with pytest.raises(RefreshError, match="does not list the dataset's history"):
        dashboard(service).probe()


def test_a_page_has_nobody_to_ask() -> None:
    assert PageDashboard.probe(object.__new__(PageDashboard)) is False
