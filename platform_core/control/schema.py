"""JSON Schemas of control files, made from the models that check them, for editors to complete and underline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from platform_core.control.shapes import COLUMN_KEYS, KINDS, LOCATION, VARIABLES, Kind, LocationFile
from platform_core.plugins.registry import plugin, plugin_names
from platform_core.specs.base import Plain
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.environment import EngineChoice, EnvironmentSpec, PluginChoice
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.refresh import RefreshSpec

SCHEMA_FOLDER = "schemas"
ENVIRONMENT = "environment"

_DIALECT = "http://json-schema.org/draft-07/schema#"
_REFERENCE = {"type": "string", "pattern": r"^\$\{[^{}]+\}$"}
_COLUMN = "ColumnSpec"
_SCALARS = ("integer", "number", "boolean")


def schema_files(project: Path) -> dict[Path, str]:
    """Text of every schema file, by path.

    Args:
        project: folder that holds ``schemas/``.

    Raises:
        PluginError: an installed plug-in cannot be loaded, so that its options are not known.
    """
    folder = project / SCHEMA_FOLDER
    return {
        folder / f"{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas().items()
    }


def schemas() -> dict[str, Plain]:
    """The schema of every kind of control file, and of an environment's file."""
    made = {
        LOCATION: _Schema().of(LocationFile),
        VARIABLES: _variables(),
        **{name: _listing(kind) for name, kind in KINDS.items()},
        ENVIRONMENT: _environment(),
    }
    return {name: {"$schema": _DIALECT, "title": f"control: {name}", **schema} for name, schema in made.items()}


class _Schema:
    """One schema file: parts of several models, their definitions under names of their own."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def part(self, model: type[BaseModel], prefix: str = "") -> Plain:
        """The schema of one model, its definitions moved to the file."""
        schema: Plain = model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
        for name, definition in schema.pop("$defs", {}).items():
            self.definitions[prefix + name] = definition
        return schema

    def of(self, model: type[BaseModel]) -> Plain:
        """A whole file that is one model."""
        return self.finished(self.part(model))

    def finished(self, schema: Plain) -> Plain:
        """The file: definitions that are used put in, what no editor needs taken out."""
        used: dict[str, Any] = {}
        waiting = _referenced(schema)
        while waiting:
            name = waiting.pop()
            if name not in used:
                used[name] = self.definitions[name]
                waiting |= _referenced(used[name])
        whole: Plain = _tidied(schema)
        if used:
            whole["$defs"] = {name: _tidied(used[name]) for name in sorted(used)}
        return whole


def _listing(kind: Kind) -> Plain:
    """A file that lists entries of one kind."""
    file = _Schema()
    whole = file.part(kind.model)
    head = {key: whole["properties"].pop(key) for key in kind.head}
    whole["required"] = [key for key in whole.get("required", []) if key not in kind.head]
    if kind.flat:
        del whole["properties"]["options"]
    if kind.model is IngestionSpec:
        whole["required"].remove("table")
        objects = [
            file.part(plugin("source", name).ObjectOptions, f"source_{name}_") for name in plugin_names("source")
        ]
        described = whole["properties"]["options"].get("description", "")
        whole["properties"]["options"] = {"description": described, "anyOf": _distinct(objects)}
    if _COLUMN in file.definitions:
        file.definitions[_COLUMN] = _column(file, masks=kind.model is IngestionSpec)
    entry = whole
    if kind.model is ConnectionSpec:
        entry = {"anyOf": [_with_options(file, whole, name, model) for name, model in _connection_options().items()]}
    elif kind.model is RefreshSpec:
        options = {name: plugin("dashboard", name).Options for name in plugin_names("dashboard")}
        entry = {"anyOf": [_with_options(file, whole, name, model) for name, model in options.items()]}
    properties = {**head, kind.entries: {"type": "array", "items": entry}}
    required = [key for key in (*kind.head, kind.entries) if key != "workstream"]
    return file.finished(
        {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    )


def _connection_options() -> dict[str, type[BaseModel]]:
    """Options of a connection by its type: sources, and dashboard services that are reached by one."""
    services = {name: plugin("dashboard", name).ConnectionOptions for name in plugin_names("dashboard")}
    sources = {name: plugin("source", name).Options for name in plugin_names("source")}
    return {**{name: model for name, model in services.items() if model is not None}, **sources}


def _with_options(file: _Schema, whole: Plain, type_: str, model: type[BaseModel]) -> Plain:
    """An entry whose plug-in's options stand beside its own keys."""
    options = file.part(model, f"{type_}_")
    properties = {**whole["properties"], "type": {"const": type_, "description": options.get("description", "")}}
    return {
        "type": "object",
        "properties": {**options.get("properties", {}), **properties},
        "required": [*whole["required"], *options.get("required", [])],
        "additionalProperties": False,
    }


def _column(file: _Schema, *, masks: bool) -> Plain:
    """A column, with the options of its mask beside its own keys."""
    own = {key: value for key, value in file.definitions[_COLUMN]["properties"].items() if key in COLUMN_KEYS}
    plain = {"type": "object", "properties": own, "additionalProperties": False}
    if not masks:
        return plain
    masked = []
    for name in plugin_names("mask"):
        options = file.part(plugin("mask", name).Options, f"mask_{name}_")
        masked.append(
            {
                "type": "object",
                "properties": {**own, "mask": {"const": name}, **options.get("properties", {})},
                "required": ["mask", *options.get("required", [])],
                "additionalProperties": False,
            }
        )
    return {"anyOf": [plain, *masked]}


def _variables() -> Plain:
    value = {"type": ["string", "number", "boolean"]}
    variable = {
        "type": "object",
        "properties": {
            "default": {**value, "description": "Value wherever no other is given."},
            "description": {"type": "string"},
        },
        "additionalProperties": {**value, "description": "Value in the environment of this name."},
    }
    return {
        "type": "object",
        "properties": {VARIABLES: {"type": "object", "additionalProperties": variable}},
        "required": [VARIABLES],
        "additionalProperties": False,
    }


def _environment() -> Plain:
    file = _Schema()
    whole = file.part(EnvironmentSpec)
    whole["required"].remove("name")
    for key, kind, choice in (("secrets", "secret store", PluginChoice), ("engine", "engine", EngineChoice)):
        beside = {
            name: part for name, part in file.part(choice)["properties"].items() if name not in ("type", "options")
        }
        choices = []
        for name in plugin_names(kind):
            options = file.part(plugin(kind, name).Options, f"{key}_{name}_")
            choices.append(
                {
                    "type": "object",
                    "properties": {"type": {"const": name}, "options": options, **beside},
                    "required": ["type", *(["options"] if options.get("required") else [])],
                    "additionalProperties": False,
                }
            )
        whole["properties"][key] = {"anyOf": choices}
    file.definitions["ChannelChoice"] = {"anyOf": [_channel(file, name) for name in plugin_names("alert channel")]}
    return file.finished(whole)


def _channel(file: _Schema, name: str) -> Plain:
    options = file.part(plugin("alert channel", name).Options, f"alert_{name}_")
    return {
        "type": "object",
        "properties": {"type": {"const": name}, "options": options},
        "required": ["type", *(["options"] if options.get("required") else [])],
        "additionalProperties": False,
    }


def _distinct(parts: list[Plain]) -> list[Plain]:
    """Parts of which none says the same as another."""
    return list({json.dumps(_tidied(part), sort_keys=True): part for part in parts}.values())


def _referenced(schema: object) -> set[str]:
    """Names of the definitions that a schema refers to."""
    if isinstance(schema, Mapping):
        found = {str(schema["$ref"]).rpartition("/")[2]} if isinstance(schema.get("$ref"), str) else set()
        return found.union(*(_referenced(value) for value in schema.values()))
    if isinstance(schema, list):
        return set().union(*(_referenced(value) for value in schema))
    return set()


def _tidied(schema: Any, *, is_map: bool = False) -> Any:  # a schema or a part of one
    """Without generated titles; a number or true/false may also be one reference ``${var.name}``.

    Args:
        schema: the part.
        is_map: whether its keys are names of properties rather than words of JSON Schema.
    """
    if isinstance(schema, list):
        return [_tidied(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if is_map:
        return {name: _tidied(value) for name, value in schema.items()}
    tidy = {
        key: _tidied(value, is_map=key in ("properties", "$defs"))
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str)) and key not in ("default", "examples", "enum", "const")
    }
    tidy |= {key: schema[key] for key in ("default", "examples", "enum", "const") if key in schema}
    if tidy.get("type") in _SCALARS:
        outer = {key: tidy.pop(key) for key in ("description", "default", "examples") if key in tidy}
        return {"anyOf": [tidy, _REFERENCE], **outer}
    return tidy
