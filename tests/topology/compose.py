"""Reads docker/compose.yaml and docker/Dockerfile the way their own tools do, as far as these tests need it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?:(?P<how>:-|:\?)(?P<rest>[^}]*))?\})")


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``${NAME}``, ``${NAME:-default}``, ``${NAME:?message}`` and ``$$``, as compose does."""

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        found = variables.get(match["name"])
        if found:
            return found
        if match["how"] == ":-":
            return match["rest"]
        raise KeyError(f"{match['name']}: {match['rest'] or 'not set'}")

    return _REFERENCE.sub(value, text)


@dataclass(frozen=True)
class Service:
    """One service, interpolated.

    Args:
        command: program and arguments; empty where the image's own is used.
        environment: what compose adds to the image's environment.
        health: the health check's program and arguments; empty where there is none.
        needs: condition by service that must be in it before this one starts.
        declared: the service's mapping, merged but not interpolated.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    health: tuple[str, ...]
    needs: dict[str, str]
    declared: dict[str, Any]


def read_services(file: Path, variables: Mapping[str, str]) -> dict[str, Service]:
    """Services by name, in an order in which they can be started."""
    declared = yaml.safe_load(file.read_text())["services"]
    services = {name: _service(name, body, variables) for name, body in declared.items()}
    ordered: dict[str, Service] = {}
    while len(ordered) < len(services):
        startable = [s for n, s in services.items() if n not in ordered and set(s.needs) <= set(ordered)]
        if not startable:
            raise ValueError(f"{file}: services wait for each other: {sorted(set(services) - set(ordered))}")
        ordered.update((service.name, service) for service in startable)
    return ordered


def _service(name: str, body: dict[str, Any], variables: Mapping[str, str]) -> Service:
    health = body.get("healthcheck", {}).get("test", [])
    return Service(
        name=name,
        command=tuple(interpolate(part, variables) for part in body.get("command", [])),
        environment={key: interpolate(value, variables) for key, value in body.get("environment", {}).items()},
        health=tuple(interpolate(part, variables) for part in health[1:]),
        needs={other: how["condition"] for other, how in body.get("depends_on", {}).items()},
        declared=body,
    )


@dataclass(frozen=True)
class Image:
    """What docker/Dockerfile puts into the image, libraries aside.

    Args:
        copies: (source, target) of each COPY from the build context, target relative to the working directory.
        environment: ENV of the final stage.
    """

    copies: tuple[tuple[str, str], ...]
    environment: dict[str, str]
    text: str


def read_image(file: Path) -> Image:
    """Read a Dockerfile."""
    text = re.sub(r"\\\n\s*", " ", file.read_text())
    copies: list[tuple[str, str]] = []
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, flags=re.MULTILINE):
        *sources, target = line.split()
        into = Path(target) / "_" if target.endswith("/") else Path(target)
        copies += [(source, str(into.with_name(Path(source).name) if into.name == "_" else into)) for source in sources]
    final = text.split("\nFROM ")[-1]
    environment: dict[str, str] = {}
    for line in re.findall(r"^ENV (.+)$", final, flags=re.MULTILINE):
        environment.update(part.split("=", 1) for part in line.split())
    return Image(tuple(copies), environment, text)


def environment_references(file: Path) -> set[str]:
    """Names in ``{env: NAME}``, anywhere in a YAML file."""

    def names(node: object) -> set[str]:
        if isinstance(node, dict):
            if list(node) == ["env"]:
                return {str(node["env"])}
            return set().union(*(names(value) for value in node.values())) if node else set()
        return set().union(*map(names, node)) if isinstance(node, list) and node else set()

    return names(yaml.safe_load(file.read_text()))
