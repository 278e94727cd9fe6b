"""Draw the card that Teams gets, and the one that closes it, into docs/images/alert.png.

    scripts/chromium && .venv/bin/python scripts/alert_card.py

The cards are those of the platform, made from the facts of a failed run; the drawing follows the parts of Adaptive
Cards that they are made of, and refuses any other.
"""

from __future__ import annotations

import datetime as dt
import html
import shutil
import sys
from collections.abc import Mapping
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
COLOURS = {
    "attention": ("#f9dcdc", "#8e192e"),
    "warning": ("#fbe9d0", "#835b00"),
    "good": ("#dff6dd", "#0e700e"),
    "accent": ("#dce6f9", "#2b4f9e"),
}
STYLE = """
body { margin: 0; padding: 24px; background: #f5f5f5; font: 14px/1.4 "Segoe UI", "DejaVu Sans", sans-serif; }
.card { width: 640px; background: #fff; border: 1px solid #d9d9d9; border-radius: 6px; margin-bottom: 20px; }
.card > * { padding: 4px 18px; } .head { padding: 12px 18px; border-radius: 6px 6px 0 0; }
.runs { white-space: pre-wrap; overflow-wrap: anywhere; } .large { font-size: 18px; } .small { font-size: 12px; }
.bolder { font-weight: 600; } .columns { display: flex; gap: 8px; } .columns > :first-child { flex: 0 0 150px; }
.actions { padding: 10px 18px 16px; } .actions span { border: 1px solid #5b5fc7; color: #444791; padding: 5px 14px;
border-radius: 4px; font-weight: 600; }
"""


def main(target: Path) -> str | None:
    """Draw; returns why it cannot be drawn, if so."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        return "there is no Chromium: run scripts/chromium first"
    from playwright.sync_api import sync_playwright

    cards = "".join(drawn(card(message)) for message in messages())
    page_text = f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><body><div id=all>{cards}</div>"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 720, "height": 100}, device_scale_factor=2)
        page.set_content(page_text)
        target.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(target), full_page=True)
        browser.close()
    sys.stdout.write(f"{target}\n")
    return None


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


def drawn(made: Mapping[str, Any]) -> str:
    """A card as HTML."""
    actions = "".join(f"<span>{html.escape(action['title'])}</span>" for action in made.get("actions", ()))
    return f"<div class=card>{''.join(map(_part, made['body']))}<div class=actions>{actions}</div></div>"


def _part(part: Mapping[str, Any]) -> str:
    match part["type"]:
        case "Container":
            back, front = COLOURS[part["style"]]
            return f'<div class=head style="background:{back};color:{front}">{"".join(map(_part, part["items"]))}</div>'
        case "ColumnSet":
            columns = "".join(f"<div>{''.join(map(_part, each['items']))}</div>" for each in part["columns"])
            return f"<div class=columns>{columns}</div>"
        case "RichTextBlock":
            return f"<div class=runs>{''.join(map(_run, part['inlines']))}</div>"
    raise ValueError(f"a part of a card that this script does not draw: {part['type']}")


def _run(run: Mapping[str, Any]) -> str:
    classes = f"{run['weight'].lower()} {run['size'].lower()}"
    return f'<span class="{classes}">{html.escape(run["text"])}</span>'


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGE))
