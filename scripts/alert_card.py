"""Draw the card that Teams gets, and the one that closes it, into docs/images/alert.png.

    scripts/chromium && .venv/bin/python scripts/alert_card.py

The cards are those of the platform, made from the facts of a failed run; Microsoft's own renderer of Adaptive Cards
(npm package adaptivecards) draws them in Chromium, in the colours of Teams, and says what it does not know.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from platform_core.alerts.teams import card
from platform_core.control.alert_records import Alert, Told
from platform_core.operations.alerts.causes import causes_of
from platform_core.operations.alerts.facts import FailedStep, FinishedRun, ShownDashboard, Surroundings
from platform_core.operations.alerts.wording import told_of_cause, told_of_recovery
from platform_core.plugins.interfaces import AlertMessage
from platform_core.specs.alerts import AlertEvent, Severity
from platform_core.specs.table import TableRef

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "alert.png"
PACKAGE = Path(__file__).parent / "adaptive_cards_package"
TOOLS = Path(__file__).parents[1] / ".edp" / "tools" / "adaptive_cards"
RENDERER = TOOLS / "node_modules" / "adaptivecards" / "dist" / "adaptivecards.min.js"


def _colours(front: str, subtle: str) -> dict[str, Any]:
    return {"default": {"default": front, "subtle": subtle}}


TEAMS: dict[str, Any] = {
    "fontFamily": '"Segoe UI", "DejaVu Sans", sans-serif',
    "fontSizes": {"small": 12, "default": 14, "medium": 14, "large": 18, "extraLarge": 24},
    "fontWeights": {"lighter": 200, "default": 400, "bolder": 600},
    "spacing": {"small": 8, "default": 12, "medium": 16, "large": 20, "extraLarge": 24, "padding": 16},
    "containerStyles": {
        name: {"backgroundColor": back, "foregroundColors": _colours(front, front)}
        for name, back, front in (
            ("default", "#ffffff", "#242424"),
            ("attention", "#f9dcdc", "#8e192e"),
            ("warning", "#fbe9d0", "#835b00"),
            ("good", "#dff6dd", "#0e700e"),
            ("accent", "#dce6f9", "#2b4f9e"),
        )
    },
    "actions": {"actionsOrientation": "horizontal", "actionAlignment": "left", "spacing": "default"},
}
"""What of Teams' light theme the cards use."""

STYLE = """
body { margin: 0; padding: 24px; background: #f5f5f5; }
.card { width: 640px; border: 1px solid #d9d9d9; border-radius: 6px; margin-bottom: 20px; overflow: hidden; }
.ac-pushButton { border: 1px solid #5b5fc7; color: #444791; background: #fff; padding: 5px 14px; border-radius: 4px;
font: 600 14px "Segoe UI", "DejaVu Sans", sans-serif; }
"""
DRAW = """
([cards, host]) => {
    const said = [];
    for (const each of cards) {
        const card = new AdaptiveCards.AdaptiveCard();
        card.hostConfig = new AdaptiveCards.HostConfig(host);
        const context = new AdaptiveCards.SerializationContext();
        card.parse(each, context);
        for (let i = 0; i < context.eventCount; i++) { said.push(context.getEventAt(i).message); }
        const frame = document.createElement("div");
        frame.className = "card";
        frame.appendChild(card.render());
        document.body.appendChild(frame);
    }
    return said;
}
"""


def main(target: Path) -> str | None:
    """Draw; returns why it cannot be drawn, if so."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        return "there is no Chromium: run scripts/chromium first"
    if not _installed():
        return "npm could not install the renderer: see that the npm registry is reached"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 690, "height": 100}, device_scale_factor=2)
        page.set_content(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><body>")
        page.add_script_tag(path=str(RENDERER))
        unknown = page.evaluate(DRAW, [[card(message) for message in messages()], TEAMS])
        target.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(target), full_page=True)
        browser.close()
    if unknown:
        return "the renderer does not know all of the card: " + "; ".join(unknown)
    sys.stdout.write(f"{target}\n")
    return None


def _installed() -> bool:
    """Install the renderer as its lock file says, unless it is there."""
    lock, stamp = PACKAGE / "package-lock.json", TOOLS / ".installed"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return True
    TOOLS.mkdir(parents=True, exist_ok=True)
    for file in (PACKAGE / "package.json", lock):
        shutil.copy(file, TOOLS)
    programs = Path(sys.executable).parent
    path = os.pathsep.join((str(programs), os.environ["PATH"]))
    npm = shutil.which("npm", path=path)
    if npm is None:
        return False
    command = [npm, "ci", "--prefix", str(TOOLS), "--no-audit", "--no-fund", "--loglevel=error"]
    if subprocess.run(command, check=False, env={**os.environ, "PATH": path}).returncode:  # noqa: S603 - fixed words
        return False
    shutil.copy(lock, stamp)
    return True


def messages() -> list[AlertMessage]:
    """What the team of crm gets when its source is away for a night, and when it is back."""
    ended = dt.datetime(2026, 11, 21, 5, 3, tzinfo=dt.UTC)
    names = ("accounts", "contacts", "customers", "invoices", "orders", "payments")
    tables = [TableRef("crm", "bronze", name) for name in names]
    skipped = [TableRef("crm", "silver", name) for name in (*names, "visits")]
    dashboards = [TableRef("crm", "dashboard", "sales"), TableRef("finance", "dashboard", "margin")]
    around = Surroundings(
        inputs=dict.fromkeys((*skipped, *dashboards), tables), connections=dict.fromkeys(tables, "crm.erp")
    )
    text = "{}: source erp cannot be reached (OperationalError [08001])\n  looked at: db.example.com:5432\n"
    steps = [
        FailedStep(
            step=ref.name,
            makes=(ref,),
            error_class="SourceError",
            error=text.format(ref) + "  look whether the server is up, then run the tables again",
            at=ended,
        )
        for ref in tables
    ]
    run = FinishedRun(
        run_id="0b8f1c2d-5a41",
        job="crm",
        location="crm",
        succeeded=False,
        ended_at=ended,
        failed=tuple(steps),
        skipped=(*skipped, dashboards[0]),
    )
    (cause,) = causes_of(run, around=around)
    shown = [ShownDashboard(ref=ref, as_of=ended - dt.timedelta(hours=23, minutes=51)) for ref in dashboards]
    link = "https://dagster.example.com/runs/0b8f1c2d-5a41"
    owners = ("team:crm", "team:finance")
    told = told_of_cause(cause, run, dashboards=shown, owners=owners, severity=Severity.ERROR, link=link)
    alert = Alert(
        id=17,
        key=cause.key,
        location="crm",
        workstream="crm",
        event=AlertEvent.FAILED,
        severity=Severity.ERROR,
        title=told.title,
        told=told,
        owners=owners,
        failing=(),
        job=None,
        run_id=run.run_id,
        times=2,
        opened_at=ended,
        seen_at=ended,
        told_at=ended,
        closed_at=None,
        closed_by=None,
    )
    over = told_of_recovery(alert, ended + dt.timedelta(hours=3, minutes=12))
    return [message(told), replace(message(over), answers="first", answers_title=told.title)]


def message(told: Told) -> AlertMessage:
    """As the dispatcher hands it to the channel."""
    return AlertMessage(
        id="edp-0",
        reference="A-17",
        severity=told.severity,
        title=told.title,
        text=told.text,
        facts=told.facts,
        good=told.good,
        link=told.link,
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGE))
