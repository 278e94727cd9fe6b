"""A person opens the UI in a real browser and finds the graph, an asset and the dashboard."""

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import PROJECT, Demo, environment
from tests.services.server_process import free_port

pytestmark = [pytest.mark.services, pytest.mark.slow]

# A webserver that answers its first questions on a busy machine takes its time.
expect.set_options(timeout=60_000)

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


def chromium() -> str:
    """The browser that scripts/chromium finds or installs."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    pytest.fail("there is no Chromium; `make test` installs it, `make test-fast` does without")


@pytest.fixture(scope="module")
def ui(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The webserver over the demo's state, each location in its own process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("ui") / "webserver.log"
    command = ["dagster_webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=PROJECT,
            env=environment(demo.state),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 240
            while not _answers(url):
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.5)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(60_000)
    yield page
    page.close()


@pytest.fixture
def shots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where screenshots go: a folder of the test's, or docs/images with --screenshots."""
    return PROJECT / "docs" / "images" if request.config.getoption("--screenshots") else tmp_path


def test_the_lineage_shows_the_workstreams_of_all_three_locations(ui: str, page: Page, shots: Path) -> None:
    groups = ",".join(f"global@global:{workstream}" for workstream in ("mobility", "crm", "reference"))
    page.goto(f"{ui}/asset-groups~/?expanded={groups}")
    for workstream in ("mobility", "crm", "reference"):
        expect(page.get_by_text(workstream, exact=True).first).to_be_visible()
    expect(page.get_by_text("source", exact=True)).to_have_count(3)
    expect(page.get_by_text("dashboard", exact=True)).to_have_count(2)
    page.wait_for_timeout(1500)
    page.screenshot(path=shots / "lineage.png")


def test_lineage_runs_from_the_source_table_of_one_team_to_the_dashboard_of_another(ui: str, page: Page) -> None:
    page.goto(f"{ui}/assets/crm/dashboard/members?view=lineage&lineageScope=upstream&lineageDepth=10")
    for name in ("rides__rides", "rides_weather", "rider_activity", "members"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()


def test_the_page_of_an_asset_shows_its_columns_owner_and_figures(ui: str, page: Page, shots: Path) -> None:
    page.goto(f"{ui}/assets/crm/bronze/riders?view=overview")
    expect(page.get_by_text("_is_current").first).to_be_attached()
    expect(page.get_by_text("mask: hash").first).to_be_visible()
    expect(page.get_by_text("Delta Lake").first).to_be_visible()
    expect(page.get_by_role("link", name="crm.yaml")).to_be_visible()
    page.wait_for_timeout(1000)
    page.screenshot(path=shots / "asset.png")
    page.goto(f"{ui}/assets/crm/bronze/riders?view=events")
    for name in ("edp/read", "edp/inserted", "edp/deleted", "edp/version"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()


def test_schedules_and_sensors_of_all_locations_are_listed(ui: str, page: Page) -> None:
    page.goto(f"{ui}/automation?groupBy=none")
    for name in ("mobility_schedule", "crm_schedule", "mobility_automation", "crm_automation"):
        expect(page.get_by_text(name).first).to_be_visible()


def test_the_dashboard_opens_without_any_outside_request(demo: Demo, page: Page, shots: Path) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    file = demo.state / "lake" / "mobility" / "dashboard" / "ridership" / "index.html"
    page.goto(file.as_uri())
    expect(page.locator("svg").first).to_be_visible()
    page.screenshot(path=shots / "dashboard.png")
    assert requests == [file.as_uri()]
