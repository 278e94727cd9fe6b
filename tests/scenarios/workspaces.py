"""A project of one's own in a temporary folder: packages with control files, and `edp` over them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from tests.conftest import PROJECT
from tests.forked import run_forked

DEFINITIONS = """\
from pathlib import Path

import dagster as dg

from platform_core import build_definitions


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions(Path(__file__).parent / "control")
"""


@dataclass(frozen=True)
class Workspace:
    """A project with its own state; `edp` and `dagster` run over it in processes of their own.

    Args:
        root: folder of the project; state is kept beside the packages, in `state`.
    """

    root: Path

    @classmethod
    def create(cls, root: Path, files: dict[str, str]) -> Workspace:
        """Make a project of files; each folder with a `control/` below it becomes a location of the workspace.

        Args:
            root: folder of the project.
            files: texts by path, e.g. `shop/control/location.yaml`.
        """
        workspace = cls(root)
        (root / "dagster_home" / "environments").mkdir(parents=True)
        shutil.copy(PROJECT / "dagster_home" / "dagster.yaml", root / "dagster_home")
        workspace.write(
            {
                "dagster_home/environments/dev.yaml": """\
                    lake: {root: lake}
                    secrets: {type: files, options: {path: secrets}}
                    max_concurrent: 2
                    """,
                **files,
            }
        )
        return workspace.list_locations()

    def list_locations(self) -> Workspace:
        """Write workspace.yaml, and the module of each location that has none."""
        entries = []
        for control in sorted(self.root.glob("*/control")):
            package = control.parent
            for name, text in (("__init__.py", ""), ("definitions.py", DEFINITIONS)):
                if not (package / name).exists():
                    (package / name).write_text(text)
            module = f"{{module_name: {package.name}.definitions, location_name: {package.name}}}"
            entries.append(f"  - python_module: {module}\n")
        (self.root / "workspace.yaml").write_text("load_from:\n" + "".join(entries))
        return self

    def write(self, files: dict[str, str]) -> None:
        """Write files of the project; texts are dedented."""
        for name, text in files.items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text))

    def sql(self, database: str, *statements: str) -> None:
        """Execute statements in a SQLite database of the project, which is made where it is missing."""
        file = self.root / database
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    @property
    def state(self) -> Path:
        return self.root / "state"

    def environment(self, **more: str) -> dict[str, str]:
        """Variables of a process that works on this project."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EDP_", "DAGSTER_"))}
        return inherited | {
            "EDP_PROJECT": str(self.root),
            "EDP_STATE": str(self.state),
            "EDP_DAGSTER_STATE": str(self.state / "dagster"),
            "DAGSTER_HOME": str(self.root / "dagster_home"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "platform_core.cli", *arguments]

    def edp(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `edp` in a process of its own."""
        return run_forked(arguments, env=self.environment(**more), cwd=self.root, timeout=120)

    def dagster(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `dagster` in a process of its own."""
        return run_forked(
            arguments, env=self.environment(**more), cwd=self.root, timeout=120, module="dagster.__main__"
        )

    def tool(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the environment in a process of its own."""
        return self._run([str(Path(sys.executable).with_name(name)), *arguments], {})

    def _run(self, command: list[str], more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment(**more),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )

    def run(self, *arguments: str) -> Ran:
        """`edp run … --json`."""
        return Ran(self.edp("run", *arguments, "--json"))


@dataclass(frozen=True)
class Ran:
    """What `edp run --json` answered."""

    process: subprocess.CompletedProcess[str]

    @property
    def code(self) -> int:
        return self.process.returncode

    @property
    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.process.stdout)
        return answer

    @property
    def statuses(self) -> dict[str, str]:
        """Status by asset."""
        return {asset["asset"]: asset["status"] for asset in self.answer["assets"]}

    @property
    def errors(self) -> dict[str, str]:
        """Message by failed asset."""
        return {asset["asset"]: asset["error"] for asset in self.answer["assets"] if asset["status"] == "failed"}

    def figures(self, asset: str) -> dict[str, Any]:
        """Figures of one asset."""
        found: dict[str, Any] = next(entry["figures"] for entry in self.answer["assets"] if entry["asset"] == asset)
        return found
