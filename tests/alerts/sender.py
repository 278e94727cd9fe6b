"""A process that records a failure and sends it, until a fault ends it.

Arguments: JSON of the control database, the state folder, the address of an ntfy service, what to do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from platform_core.control.database import open_database
from platform_core.control.outbox import Outbox
from platform_core.operations.alerts.dispatch import Dispatcher
from platform_core.secrets.files import FileOptions, FileSecrets
from platform_core.settings import arm_fault
from platform_core.specs.environment import ControlSpec
from tests.alerts.outboxes import ORDERS, failure, record
from tests.alerts.services import NtfyService
from tests.alerts.test_channels import ntfy_channel


class _At:
    def __init__(self, url: str) -> None:
        self.url = url


def main(control: str, state: str, url: str, *what: str) -> None:
    arm_fault()
    secrets = FileSecrets(FileOptions(path=str(Path(state) / "secrets")))
    spec = ControlSpec.model_validate_json(control)
    outbox = Outbox(open_database(spec, state=Path(state), secrets=secrets))
    service: NtfyService = _At(url)  # type: ignore[assignment]
    for each in what:
        if each == "fail":
            record(outbox, failure(), mark="run-1")
        elif each == "recover":
            record(outbox, mark="run-2", well=(ORDERS,))
        else:
            Dispatcher(outbox, {"team": lambda: ntfy_channel(service)}, first_wait=0.01).deliver()


if __name__ == "__main__":
    main(*sys.argv[1:])
