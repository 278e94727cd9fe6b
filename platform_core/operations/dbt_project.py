"""A dbt project on disk: where it lies, what its manifest says, and how the manifest is built."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from platform_core.control.dbt_projects import manifest_path, profile_outputs, selection_path
from platform_core.errors import ConfigError, Issue, Place, StepError
from platform_core.lake.paths import DEFERRED_VARIABLE, ROOT_VARIABLE, SHARED_ROOT_VARIABLE, Lake
from platform_core.lake.storage import local_path
from platform_core.operations.dbt_log import failure_text, printed
from platform_core.plugins.interfaces import SecretStore
from platform_core.settings import child_environment
from platform_core.specs.base import SecretRef
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.environment import DbtChoice
from platform_core.specs.person import Person

_WRITTEN_BY_DBT = ("target", "logs", "dbt_packages")
_BUILT = ("model", "seed", "snapshot")
_PARSED = ("manifest.json", "partial_parse.msgpack")
_POLL_SECONDS = 0.2
STORAGE_OPTIONS = "DBT_ENV_SECRET_LAKE_OPTIONS"
"""Variable with the lake's storage options as JSON; dbt keeps values of variables named so out of its logs."""


@dataclass(frozen=True)
class DbtProject:
    """One dbt project and the files that the platform keeps for it.

    Args:
        spec: its declaration.
        folder: where ``dbt_project.yml`` lies.
        state: folder of all projects' own files; never in git.
        choice: what the environment says of dbt.
    """

    spec: DbtSpec
    folder: Path
    state: Path
    choice: DbtChoice = field(default_factory=DbtChoice)

    @property
    def name(self) -> str:
        """How messages and files call it: ``<workstream>_<name>``."""
        return f"{self.spec.workstream}_{self.spec.name}"

    @property
    def manifest(self) -> Path:
        """What ``edp setup`` builds, and what definitions are made from."""
        return manifest_path(self.folder)

    @property
    def selection(self) -> Path | None:
        """What dbt has selected of the project; None where all of it is meant."""
        return selection_path(self.spec, self.folder)

    @property
    def adapter(self) -> str:
        """The adapter of the target that is used: duckdb, postgres, spark, …

        Raises:
            ConfigError: profiles.yml has no such target.
        """
        return str(self.output["type"])

    @cached_property
    def output(self) -> Mapping[str, Any]:
        """The target that is used, as profiles.yml has it.

        Raises:
            ConfigError: profiles.yml has no such target.
        """
        wanted = self._target
        try:
            outputs = profile_outputs(self.folder)
            return outputs[wanted] if wanted is not None else next(iter(outputs.values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
            said = f"no target '{wanted}'" if wanted is not None else "no targets"
            place = self.spec.place or Place(self.folder)
            raise ConfigError(
                [
                    Issue(
                        place,
                        f"dbt project '{self.spec.name}' has {said}",
                        (
                            f"looked at: {self.folder / 'profiles.yml'}",
                            "the target is that of the entry, else dbt.target of the environment's file",
                        ),
                    )
                ]
            ) from None

    @property
    def _target(self) -> str | None:
        return self.spec.target or self.choice.target

    @property
    def database(self) -> Path:
        """DuckDB's file; one process at a time may have it open."""
        return self.state / f"{self.name}.duckdb"

    @property
    def target(self) -> Path:
        """Folder for what dbt writes while it runs for the platform."""
        return self.state / self.name / "target"

    @property
    def logs(self) -> Path:
        """Folder of dbt's own logs."""
        return self.state / self.name / "logs"

    def command(self, verb: str, *arguments: str, target: Path) -> list[str]:
        """The command line of a dbt process for this project."""
        chosen = ("--target", self._target) if self._target else ()
        return [
            *(sys.executable, "-m", "platform_core.operations.dbt_process"),
            *("--no-use-colors", "--no-send-anonymous-usage-stats", "--no-version-check"),
            *("--log-format", "json", "--log-path", str(self.logs)),
            *(
                verb,
                "--profiles-dir",
                str(self.folder),
                "--project-dir",
                str(self.folder),
                "--target-path",
                str(target),
            ),
            *chosen,
            *arguments,
        ]

    def environment(
        self, lake: Lake, *, secrets: SecretStore | None = None, deferred: str | None = None
    ) -> dict[str, str]:
        """All environment variables of a dbt process: a few of ours, those that the environment's file names, nothing
        else of this process.

        Args:
            secrets: where the values of secrets are; None: dbt reads the project only, and gets none.
            deferred: what is read from the lake as ``Deferral.as_variable`` writes it; None: nothing is.

        Raises:
            SecretError: a secret is missing.
        """
        extra = {name: _revealed(value, secrets) for name, value in self.choice.variables.items()} | {
            "EDP_DBT_DATABASE": str(self.database.absolute()),
            ROOT_VARIABLE: _absolute(lake.root),
            "TZ": "UTC",
            "DO_NOT_TRACK": "1",
        }
        if lake.shared is not None:
            extra[SHARED_ROOT_VARIABLE] = _absolute(lake.shared)
        if deferred is not None:
            extra[DEFERRED_VARIABLE] = deferred
        if lake.storage_options:
            extra[STORAGE_OPTIONS] = json.dumps(dict(lake.storage_options))
        return child_environment(extra)

    def stale(self) -> bool:
        """Whether the manifest, or what is selected, is missing, or a file of the project is newer."""
        if self.manifest_is_stale():
            return True
        built = self.manifest.stat().st_mtime
        return self.selection is not None and not (self.selection.is_file() and self.selection.stat().st_mtime >= built)

    def manifest_is_stale(self) -> bool:
        """Whether the manifest is missing, or a file of the project is newer."""
        if not self.manifest.is_file():
            return True
        built = self.manifest.stat().st_mtime
        return any(path.stat().st_mtime > built for path in self._sources())

    def _sources(self) -> Iterator[Path]:
        for folder, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if name not in _WRITTEN_BY_DBT and not name.startswith(".")]
            yield from (Path(folder) / name for name in files if not name.startswith("."))

    @contextmanager
    def locked(self, *, cancelled: Callable[[], bool] = lambda: False, log: Callable[[str], None]) -> Iterator[int]:
        """Be the only one that works on the project's DuckDB file; waits until that is so.

        Gives a file descriptor to hand to the dbt process: the lock is held until the last holder has ended, so a
        dbt process that outlives the one that started it keeps others out.

        Raises:
            StepError: the run was cancelled while waiting.
        """
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.state / f"{self.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            waiting = False
            while not _taken(descriptor):
                if not waiting:
                    log(f"dbt project {self.name}: waiting for another run of it to end")
                waiting = True
                if cancelled():
                    raise StepError(f"dbt project {self.name}: cancelled while another run of it was under way")
                time.sleep(_POLL_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)


def open_project(
    spec: DbtSpec, *, root: Path, state: Path, person: Person | None = None, choice: DbtChoice | None = None
) -> DbtProject:
    """The project that a spec names.

    Args:
        spec: its declaration.
        root: folder of the location's package, from which ``spec.project`` counts.
        state: the installation's state folder.
        person: whose database its models are built in; None: everybody's.
        choice: what the environment says of dbt; None: nothing.

    Raises:
        ConfigError: there is no dbt project.
    """
    return DbtProject(spec, project_folder(spec, root=root), state_folder(state, person), choice or DbtChoice())


def state_folder(state: Path, person: Person | None) -> Path:
    """The folder of all projects' own files: databases, locks, what dbt writes while it runs."""
    return state / "dbt" if person is None else Path(person.root(str(state / "dbt")))


def project_folder(spec: DbtSpec, *, root: Path) -> Path:
    """Where the project that a spec names lies.

    Raises:
        ConfigError: there is no dbt project.
    """
    folder = (root / spec.project).resolve()
    for name in ("dbt_project.yml", "profiles.yml"):
        if not (folder / name).is_file():
            raise ConfigError([Issue(spec.place or Place(folder), f"dbt project '{spec.name}' has no {folder / name}")])
    return folder


def parse(project: DbtProject, *, lake: Lake, log: Callable[[str], None] = lambda _: None) -> bool:
    """Build the project's manifest, unless it is newer than all files of the project; returns whether it was built.

    For set-up and CI: loading definitions reads the manifest and never runs dbt.

    Raises:
        ConfigError: dbt cannot read the project, or nothing is selected of it; the text is dbt's.
    """
    if not project.stale():
        return False
    with project.locked(log=log):
        if not project.stale():
            return False
        log(f"dbt project {project.name}: building its manifest")
        # Apart, and moved when complete: definitions may be loading the old one right now.
        apart = project.folder / "target" / f"parse-{uuid.uuid4().hex}"
        apart.mkdir(parents=True)
        try:
            began = time.time()
            # Other entries of the project have selected from the manifest that is there.
            files = _PARSED if project.manifest_is_stale() else ()
            if project.selection is None:
                _ask(project, "parse", lake=lake, target=apart)
            else:
                chosen = selected(project, *selection(project.spec), lake=lake, target=apart)
                if not chosen:
                    raise _refused(project, f"nothing of dbt project '{project.spec.name}' is selected")
                (apart / project.selection.name).write_text(json.dumps(sorted(chosen)))
                files = (*files, project.selection.name)
            for name in files:
                # A file that is edited while dbt reads counts as newer.
                os.utime(apart / name, (began, began))
                (apart / name).replace(project.folder / "target" / name)
        finally:
            shutil.rmtree(apart, ignore_errors=True)
    return True


def selection(spec: DbtSpec) -> tuple[str, ...]:
    """Arguments of dbt that select what an entry declares."""
    chosen = ("--select", *spec.select) if spec.select else ()
    return (*chosen, *(("--exclude", *spec.exclude) if spec.exclude else ()))


def selected(
    project: DbtProject, *arguments: str, lake: Lake, target: Path, kinds: tuple[str, ...] = _BUILT
) -> frozenset[str]:
    """Unique ids of what dbt selects; it leaves its manifest in ``target``.

    Args:
        arguments: dbt's own: ``--select``, ``--exclude``, ``--state``, each with what follows it.
        kinds: of resources, in dbt's words.

    Raises:
        ConfigError: dbt cannot read the project or the arguments; the text is dbt's.
    """
    target.mkdir(parents=True, exist_ok=True)
    _take_parsed(project, target)
    types = [part for kind in kinds for part in ("--resource-type", kind)]
    said = _ask(
        project, "ls", *types, "--output", "json", "--output-keys", "unique_id", *arguments, lake=lake, target=target
    )
    return frozenset(json.loads(text)["unique_id"] for line in said if (text := printed(line)) and text[0] == "{")


def _ask(project: DbtProject, verb: str, *arguments: str, lake: Lake, target: Path) -> list[str]:
    """Run dbt where it opens no database; the lines that it prints."""
    process = subprocess.Popen(  # noqa: S603 - our interpreter, no shell
        project.command(verb, *arguments, target=target),
        cwd=project.folder,
        env=project.environment(lake),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with process:
        # Not by communicate(): it closes standard input, and dbt would take this process for dead.
        said = list(process.stdout or ())
    if process.returncode:
        raise _refused(project, failure_text(said))
    return said


def _refused(project: DbtProject, message: str) -> ConfigError:
    return ConfigError([Issue(project.spec.place or Place(project.folder), message)])


def _revealed(value: str | SecretRef, secrets: SecretStore | None) -> str:
    if isinstance(value, str):
        return value
    # Whatever a project does with it while it is only read, it is not the secret.
    return "not-given" if secrets is None else secrets.get(value.secret).reveal().decode()


def prepare_target(project: DbtProject) -> None:
    """Make the folder of a run, with what dbt has parsed already: it then reads changed files only."""
    project.target.mkdir(mode=0o700, parents=True, exist_ok=True)
    project.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    (project.target / "run_results.json").unlink(missing_ok=True)
    _take_parsed(project, project.target)


def _take_parsed(project: DbtProject, target: Path) -> None:
    parsed = project.folder / "target" / "partial_parse.msgpack"
    if parsed.is_file() and not (target / parsed.name).exists():
        shutil.copyfile(parsed, target / parsed.name)


def _absolute(root: str) -> str:
    local = local_path(root)
    return root if local is None else str(local.absolute())


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
