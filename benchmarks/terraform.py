"""The same tables as resources of Terraform, whose plan and apply are measured beside ours where it is installed.

Each table is a ``terraform_data`` resource with our fields as its input: the provider is built in, nothing is
downloaded, and the state is a local file. Terraform compares maps, and knows neither masks nor readers. Its apply of so
many resources grows faster than their number, so their state is written as one that it had applied: that of
one resource, so many times over.
"""

from __future__ import annotations

import copy
import json
import resource
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESOURCE = """\
resource "terraform_data" "t{number}" {{
  input = {{
    object      = "t{number}"
    mode        = "incremental"
    key         = ["id"]
    cursor      = "updated_at"
    lookback    = "2 hours"
    description = "{description}"
    columns = {{
      email = {{ mask = "hash", domain = "email", personal = true }}
      name  = {{ mask = "full", personal = true }}
    }}
  }}
}}
"""
RESOURCES_A_FILE = 100


@dataclass(frozen=True)
class Took:
    """Seconds of one command, its start included."""

    wall: float
    processor: float


def version() -> str | None:
    """Which Terraform is installed; None: none is."""
    if shutil.which("terraform") is None:
        return None
    return _run(["version"], Path.cwd())[1].splitlines()[0]


class Terraform:
    """So many tables as resources, in a folder."""

    def __init__(self, folder: Path, *, tables: int) -> None:
        self.folder = folder
        self.tables = tables
        folder.mkdir(parents=True)
        for first in range(0, tables, RESOURCES_A_FILE):
            self._write(first)
        _run(["init", "-input=false"], folder)

    def change_one(self, description: str) -> None:
        """Give the last table another description."""
        self._write((self.tables - 1) // RESOURCES_A_FILE * RESOURCES_A_FILE, last=description)

    def plan(self) -> Took:
        return _run(["plan", "-input=false", "-no-color", "-out=plan"], self.folder)[0]

    def apply(self) -> Took:
        return _run(["apply", "-input=false", "-no-color", "plan"], self.folder)[0]

    def fill(self) -> Took:
        """Write the state as if all had been applied; returns what the apply of one resource takes."""
        one = Terraform(self.folder.with_name(f"{self.folder.name}_one"), tables=1)
        one.plan()
        took = one.apply()
        state = json.loads((one.folder / "terraform.tfstate").read_text())
        [applied] = state["resources"]
        state["resources"] = [self._renumbered(applied, number) for number in range(self.tables)]
        (self.folder / "terraform.tfstate").write_text(json.dumps(state))
        shutil.rmtree(one.folder)
        return took

    def _renumbered(self, applied: dict[str, Any], number: int) -> dict[str, Any]:
        found = copy.deepcopy(applied)
        found["name"] = f"t{number}"
        attributes = found["instances"][0]["attributes"]
        attributes["id"] = str(uuid.UUID(int=number))
        for side in ("input", "output"):
            attributes[side]["value"]["object"] = f"t{number}"
        return found

    def _write(self, first: int, *, last: str = "One of many") -> None:
        end = min(first + RESOURCES_A_FILE, self.tables)
        texts = (
            RESOURCE.format(number=number, description=last if number == self.tables - 1 else "One of many")
            for number in range(first, end)
        )
        (self.folder / f"from_{first:06}.tf").write_text("".join(texts))


def _run(arguments: list[str], folder: Path) -> tuple[Took, str]:
    before, began = _children(), time.perf_counter()
    done = subprocess.run(["terraform", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return Took(time.perf_counter() - began, _children() - before), done.stdout


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
