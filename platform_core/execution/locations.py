"""Code locations loaded into this process, and the graph that their assets form together."""

import difflib
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.asset_selection import DagsterInvalidAssetSelectionError
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.autodiscovery import loadable_targets_from_python_module

from platform_core.errors import ConfigError, Issue, Place, PlatformError, redacted

_PLATFORM = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class LoadedLocation:
    """A code location, loaded into this process."""

    name: str
    repository: dg.RepositoryDefinition
    pointer: ModuleCodePointer

    def job(self, name: str) -> ReconstructableJob:
        """A job that child processes can load again."""
        # With what this process noted while it loaded, so that they load the same.
        noted = self.repository.repository_load_data
        return ReconstructableJob(ReconstructableRepository(self.pointer, repository_load_data=noted), name)

    def origin(self, job: str) -> RemoteJobOrigin:
        """What lets the UI find the job of a run again, to re-execute it."""
        # What `dagster dev` makes of the same entry of workspace.yaml; the UI compares the two by name.
        target = LoadableTargetOrigin(
            executable_path=sys.executable,
            module_name=self.pointer.module,
            working_directory=self.pointer.working_directory,
        )
        location = ManagedGrpcPythonEnvCodeLocationOrigin(target, location_name=self.name)
        return RemoteJobOrigin(RemoteRepositoryOrigin(location, self.repository.name), job)


def load_location(name: str, module: str, *, folder: Path | None = None) -> LoadedLocation:
    """Import a location's module and build its definitions.

    Args:
        name: of the location.
        module: to import.
        folder: where it is looked for first, and from then on whatever it imports.

    Raises:
        ConfigError: its control files are wrong.
        PlatformError: the module cannot be imported, holds no definitions, or more than one.
    """
    working_directory = str(folder) if folder else None
    if working_directory and working_directory not in sys.path:
        # Not at the beginning: Dagster takes that for the folder of the script, and leaves it out.
        sys.path.insert(1, working_directory)
    try:
        targets = loadable_targets_from_python_module(module, working_directory)
        if len(targets) != 1:
            raise PlatformError(f"module '{module}' must define exactly one dg.Definitions, it defines {len(targets)}")
        pointer = ModuleCodePointer(module, targets[0].attribute, working_directory)
        return LoadedLocation(name, ReconstructableRepository(pointer).get_definition(), pointer)
    except Exception as error:  # noqa: BLE001 - a team's module may raise anything
        known = next((cause for cause in _causes(error) if isinstance(cause, PlatformError)), None)
        raise known or PlatformError(_unimportable(module, error)) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unimportable(module: str, error: Exception) -> str:
    innermost = list(_causes(error))[-1]
    speaks_of_code = isinstance(innermost, (dg.DagsterError, ImportError, NameError, AttributeError, SyntaxError))
    text = f"{type(innermost).__name__}: {innermost}" if speaks_of_code else redacted(innermost)
    if isinstance(innermost, SyntaxError):
        text, places = f"SyntaxError: {innermost.msg}", [(str(innermost.filename), innermost.lineno or 0)]
    else:
        frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(innermost.__traceback__)]
        places = [frame for frame in frames if _is_of_a_team(Path(frame[0]))]
    place = f"\n  at {Place(Path(places[-1][0]), places[-1][1])}" if places else ""
    return f"module '{module}' cannot be imported\n  {text}{place}"


def _is_of_a_team(file: Path) -> bool:
    """Whether a file is neither the import system's, nor an installed package's, nor the platform's."""
    others = (Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib")), _PLATFORM)
    return file.is_file() and not any(file.is_relative_to(other) for other in others)


class WorkspaceGraph:
    """The assets that several locations can run, and what each is made from.

    Args:
        locations: loaded locations; a key built by one may be an input in another.
    """

    def __init__(self, locations: Sequence[LoadedLocation]) -> None:
        self.home: dict[dg.AssetKey, LoadedLocation] = {}
        inputs: dict[dg.AssetKey, set[dg.AssetKey]] = {}
        for location in locations:
            graph = location.repository.asset_graph
            for key in graph.executable_asset_keys:
                self.home[key] = location
                inputs[key] = set(graph.get(key).parent_keys)
        self.inputs = {key: {parent for parent in parents if parent in self.home} for key, parents in inputs.items()}
        self._dependents: dict[dg.AssetKey, set[dg.AssetKey]] = {}
        for key, parents in self.inputs.items():
            for parent in parents:
                self._dependents.setdefault(parent, set()).add(key)

    def select(self, selections: Iterable[str]) -> frozenset[dg.AssetKey]:
        """The assets that selections name.

        Args:
            selections: each a workstream, a layer of it or a table (``workstream.layer.name``), with ``+`` before
                it for everything it is made from and after it for everything made from it, or an expression of
                Dagster's asset selection language; none at all: everything.

        Raises:
            ConfigError: a selection names nothing.
        """
        texts = list(selections)
        if not texts:
            return frozenset(self.home)
        issues, selected = [], set[dg.AssetKey]()
        for text in texts:
            found = self._select_one(text)
            selected |= found
            if not found:
                issues.append(self._nothing_selected(text))
        if issues:
            raise ConfigError(issues)
        return frozenset(selected)

    def made_from(self, keys: Iterable[dg.AssetKey]) -> set[dg.AssetKey]:
        """Everything that is made from assets, directly or not."""
        return _reachable(keys, self._dependents)

    def next_stage(self, remaining: set[dg.AssetKey]) -> set[dg.AssetKey]:
        """The largest share of one workstream whose inputs are done or in the share itself.

        Raises:
            PlatformError: every share waits for another; the assets form a cycle.
        """
        shares: dict[tuple[str, str], set[dg.AssetKey]] = {}
        for key in remaining:
            shares.setdefault((self.home[key].name, key.path[0]), set()).add(key)
        stages = {name: self._closed(share, remaining) for name, share in shares.items()}
        stage = stages[max(stages, key=lambda name: (len(stages[name]), name))]
        if not stage:
            names = ", ".join(dotted(key) for key in sorted(remaining)[:5])
            raise PlatformError(f"assets wait for each other across locations: {names}\n  `edp check` names the cycle")
        return stage

    def _closed(self, share: set[dg.AssetKey], remaining: set[dg.AssetKey]) -> set[dg.AssetKey]:
        blocked = {key for key in share if any(p in remaining and p not in share for p in self.inputs[key])}
        return share - blocked - self.made_from(blocked)

    def _select_one(self, text: str) -> set[dg.AssetKey]:
        parts = text.strip("+").split(".")
        found = {key for key in self.home if list(key.path[: len(parts)]) == parts}
        if found:
            named = frozenset(found)
            if text.startswith("+"):
                found |= _reachable(named, self.inputs)
            if text.endswith("+"):
                found |= self.made_from(named)
            return found
        try:
            selection = dg.AssetSelection.from_string(text)
        except DagsterInvalidAssetSelectionError:
            return set()
        graphs = {id(location): location.repository.asset_graph for location in self.home.values()}
        return {
            key for graph in graphs.values() for key in selection.resolve(graph, allow_missing=True) if key in self.home
        }

    def _nothing_selected(self, text: str) -> Issue:
        workstreams = sorted({key.path[0] for key in self.home})
        known = sorted({dotted(key) for key in self.home} | set(workstreams))
        close = difflib.get_close_matches(text.strip("+"), known, n=1)
        hints = [f"known workstreams: {', '.join(workstreams)}"]
        hints += [f"did you mean '{close[0]}'?"] if close else ["`edp list` shows what is declared"]
        return Issue(Place(Path(text)), "selects nothing", tuple(hints))


def dotted(key: dg.AssetKey) -> str:
    """A key as people write it: ``workstream.layer.name``."""
    return ".".join(key.path)


def _reachable(start: Iterable[dg.AssetKey], edges: Mapping[dg.AssetKey, set[dg.AssetKey]]) -> set[dg.AssetKey]:
    seen: set[dg.AssetKey] = set()
    frontier = list(start)
    while frontier:
        for neighbour in edges.get(frontier.pop(), ()):
            if neighbour not in seen:
                seen.add(neighbour)
                frontier.append(neighbour)
    return seen
