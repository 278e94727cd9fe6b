"""Reads the file of one environment and resolves the paths in it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from platform_core.control.database_url import file_url, parse_url
from platform_core.control.documents import Document, PathPart, read_document
from platform_core.control.plugin_options import check_options
from platform_core.control.report import Report, excerpt
from platform_core.control.variables import interpolate
from platform_core.control.wording import judge
from platform_core.errors import ConfigError, PluginError
from platform_core.plugins.registry import plugin, plugin_names, suggestions
from platform_core.settings import Settings
from platform_core.specs.alerts import AlertsSpec, ChannelChoice
from platform_core.specs.base import is_name
from platform_core.specs.environment import ControlSpec, EnvironmentSpec, PluginChoice
from platform_core.specs.person import person_of

_PATH_OPTION = re.compile(r"(.*_)?(path|folder|root|file|directory)")
_URL = "://"
_SHORTEST_LEASE = timedelta(seconds=1)


def load_environment(settings: Settings) -> EnvironmentSpec:
    """Read the environment that the settings name.

    A relative ``lake.root``, a relative SQLite file in ``control.url``, and relative paths in options of the secret
    store and the engine, count from the state folder; other URLs stay as they are.

    Args:
        settings: where environment files and the state folder lie, and the environment's name.

    Raises:
        ConfigError: there is no such environment, or its file is wrong.
    """
    report = Report(settings.project)
    spec = read_environment(settings, report)
    report.raise_if_any()
    if spec is None:
        raise ConfigError([])
    return spec


def environment_names(settings: Settings) -> list[str]:
    """Names of the environments that have a file."""
    folder = settings.environments
    return sorted(file.stem for file in folder.glob("*.yaml")) if folder.is_dir() else []


def read_environment(settings: Settings, report: Report) -> EnvironmentSpec | None:
    """As :func:`load_environment`; faults go to the report, and None comes back where there are any."""
    name = settings.environment
    file = settings.environments / f"{excerpt(name)}.yaml"
    known = environment_names(settings)
    if not is_name(name) or name not in known:
        hints = report.choice("environments", name, known)
        report.add(file, 0, f"unknown environment '{excerpt(name)}'", *hints)
        return None
    document = read_document(file, report, example="lake: {root: lake}")
    if document is None:
        return None
    if document.templated and not interpolate(document, {"env.state": str(settings.state)}, report):
        return None
    fields = {"name": name, **document.value}
    spec, faults = judge(EnvironmentSpec, fields, report=report)
    for fault in faults:
        report.add(file, document.line(fault.path), fault.message, *fault.hints)
    if spec is None:
        return None
    if spec.name != name:
        report.add(file, document.line(("name",)), f"name is '{spec.name}', the file's is '{name}'", "make them equal")
        return None
    checker = _Choices(document, settings.state, report)
    secrets = checker.resolved("secret store", spec.secrets, "secrets")
    engine = checker.resolved("engine", spec.engine, "engine")
    control = _control(spec.control, document, settings.state, report)
    alerts = _alerts(spec.alerts, checker)
    if spec.spark is not None and checker.resolved("spark", spec.spark, "spark") is None:
        return None
    if secrets is None or engine is None or control is None or (alerts is None and spec.alerts is not None):
        return None
    lake = spec.lake.model_copy(update={"root": _resolved(spec.lake.root, settings.state)})
    found = {"lake": lake, "secrets": secrets, "engine": engine, "control": control, "alerts": alerts}
    person = person_of(settings.user or settings.account, stated=settings.user is not None)
    return spec.model_copy(update=found).at(document.place()).used_by(person)


def _alerts(alerts: AlertsSpec | None, checker: _Choices) -> AlertsSpec | None:
    """The channels with paths resolved; None where there are none, or one is wrong."""
    if alerts is None:
        return None
    channels = {}
    for name, channel in alerts.channels.items():
        choice = PluginChoice(type=channel.type, options=channel.options)
        found = checker.resolved("alert channel", choice, "alerts", "channels", name)
        if found is not None:
            channels[name] = ChannelChoice(type=found.type, options=found.options)
    whole = len(channels) == len(alerts.channels)
    for index, name in enumerate(alerts.fallback):
        if name not in alerts.channels:
            hints = checker.report.choice("channels", name, alerts.channels)
            checker.complain(("alerts", "fallback", index), f"unknown channel '{excerpt(name)}'", *hints)
            whole = False
    return alerts.model_copy(update={"channels": channels}) if whole else None


def _control(control: ControlSpec, document: Document, state: Path, report: Report) -> ControlSpec | None:
    """The control database with its file resolved; None where it is wrong."""

    def complain(key: str, message: str, *hints: str) -> None:
        report.add(document.file, document.line(("control", key)), message, *hints)

    try:
        url = parse_url(control.url, state=state)
    except ValueError as error:
        # The URL itself is not shown: it may hold a password.
        complain("url", f"url {error}")
        return None
    if control.lease < _SHORTEST_LEASE:
        complain("lease", "a lease must hold for a second at least; a minute is usual")
        return None
    if url.file is None:
        return control
    if control.password is not None:
        complain("password", "SQLite takes no password", "remove it, or name a PostgreSQL database in url")
        return None
    return control.model_copy(update={"url": file_url(url.file)})


class _Choices:
    """Checks the plug-ins that an environment chooses."""

    def __init__(self, document: Document, state: Path, report: Report) -> None:
        self.document = document
        self.state = state
        self.report = report

    def resolved(self, kind: str, choice: PluginChoice, *key: str) -> PluginChoice | None:
        """The choice with paths resolved; None where it is wrong."""
        if choice.type not in plugin_names(kind):
            short = excerpt(choice.type)
            self.complain((*key, "type"), f"unknown {kind} '{short}'", *suggestions(kind, short))
            return None
        try:
            model: type[BaseModel] = plugin(kind, choice.type).Options
        except PluginError as error:
            message, *hints = str(error).splitlines()
            self.complain((*key, "type"), message, *(hint.strip() for hint in hints))
            return None
        faults, _ = check_options(model, choice.options, self.report)
        for fault in faults:
            self.complain((*key, "options", *fault.path), fault.message, *fault.hints)
        if faults:
            return None
        options = {name: self._option(model, name, value) for name, value in choice.options.items()}
        return choice.model_copy(update={"options": options})

    def _option(self, model: type[BaseModel], name: str, value: Any) -> Any:  # any option
        field = model.model_fields.get(name)
        is_path = _PATH_OPTION.fullmatch(name) or (field is not None and field.annotation in (Path, Path | None))
        return _resolved(value, self.state) if is_path and isinstance(value, str) else value

    def complain(self, path: tuple[PathPart, ...], message: str, *hints: str) -> None:
        """Report what is wrong at a path of the file."""
        self.report.add(self.document.file, self.document.line(path), message, *hints)


def _resolved(path: str, state: Path) -> str:
    return path if _URL in path else str(state / path)
