"""A process that loads tables as it is told: commands come as lines of standard input, answers go to its output."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from platform_core.control.loads import Ticket, migrate, open_loads
from platform_core.errors import PlatformError
from platform_core.secrets.files import FileOptions, FileSecrets
from platform_core.specs.environment import ControlSpec
from platform_core.specs.table import TableRef


class Contender:
    """Holds at most one ticket."""

    def __init__(self, control: str, state: str, secrets: str) -> None:
        self.place: dict[str, Any] = {
            "control": ControlSpec.model_validate_json(control),
            "state": Path(state),
            "secrets": FileSecrets(FileOptions(path=secrets)),
        }
        self.loads = open_loads(**self.place)
        self.ticket: Ticket | None = None

    def migrate(self) -> Any:
        return migrate(**self.place)

    def begin(self, table: str, above: int, wait: float) -> Any:
        self.ticket = self.loads.begin(
            TableRef.parse(table, workstream="-"),
            mode="full",
            above=above,
            run_id=None,
            wait=timedelta(seconds=wait),
            log=logging.getLogger("contender"),
            cancelled=lambda: False,
        )
        return {"batch_id": self.ticket.batch_id, "taken_over": self.ticket.taken_over}

    def confirm(self) -> Any:
        assert self.ticket is not None
        self.ticket.confirm()

    def finish(self) -> Any:
        assert self.ticket is not None
        with self.ticket as ticket:
            ticket.finish(status="succeeded", figures={"rows_read": 1})


def main() -> None:
    contender = Contender(*sys.argv[1:4])
    _say("ready")
    for line in sys.stdin:
        name, arguments = json.loads(line)
        command: Callable[..., Any] = getattr(contender, name)
        try:
            answer = {"ok": command(**arguments)}
        except PlatformError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        _say(json.dumps(answer))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
