"""Say in plain words what a model found wrong with declared values.

The values themselves are shown only where they are names to choose from, and never for a field whose name
sounds like a secret's.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from platform_core.control.documents import PathPart, kind_of
from platform_core.control.report import Report, excerpt
from platform_core.specs.base import SecretRef

Path = tuple[PathPart, ...]

_SECRET = re.compile(r"secret|passw|token|credential|api_?key|account_?key|private|connection_string", re.IGNORECASE)
_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_COLLECTIONS = ("tuple_type", "set_type", "frozen_set_type")
_SIMPLE = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    timedelta: "a text such as '2 hours'",
}


class Complaint:
    """One fault of a declared value.

    Args:
        path: where it is, from the value that was checked.
        message: what is wrong, in one line.
        hints: what is known, what to do.
    """

    def __init__(self, path: Path, message: str, *hints: str) -> None:
        self.path = path
        self.message = message
        self.hints = hints


_Model = TypeVar("_Model", bound=BaseModel)


def judge(
    model: type[_Model],
    value: Any,  # plain values of a file
    *,
    report: Report,
    known: Mapping[type[BaseModel], Sequence[str]] | None = None,
) -> tuple[_Model | None, list[Complaint]]:
    """An instance of a model made from plain values, or everything that is wrong with them.

    Args:
        model: what the values should be.
        value: plain values of a file.
        report: finds similar words.
        known: keys of a model as a person writes them, where they differ from its fields.
    """
    # By way of JSON, because strict mode then takes lists for tuples and texts for enums, and nothing else.
    text = json.dumps(value, check_circular=False)
    try:
        return model.model_validate_json(text, strict=True), []
    except ValidationError as error:
        if faults := _complaints(error, model, value, report, known or {}):
            return None, faults
    # Only lists for tuples were refused, which strict mode does not know behind a validator of the model's own.
    try:
        return model.model_validate_json(text), []
    except ValidationError as error:
        return None, _complaints(error, model, value, report, known or {})


def _complaints(
    error: ValidationError,
    model: type[BaseModel],
    value: Any,
    report: Report,
    known: Mapping[type[BaseModel], Sequence[str]],
) -> list[Complaint]:
    wording = _Wording(model, value, report, known)
    found: dict[Path, Complaint] = {}
    for detail in error.errors(include_url=False, include_input=False):
        path = tuple(part for part in detail["loc"] if part != "[key]")
        extra = detail["type"] in ("missing", "extra_forbidden")
        # A union names the branch that it tried: that is no place in the file.
        place = _existing(path[:-1], value) + path[-1:] if extra else _existing(path, value)
        if detail["type"] in _COLLECTIONS and isinstance(_look_up(value, place), list):
            continue
        if place not in found and (complaint := wording.complaint(detail, place)):
            found[place] = complaint
    return list(found.values())


class _Wording:
    def __init__(
        self, model: type[BaseModel], value: object, report: Report, known: Mapping[type[BaseModel], Sequence[str]]
    ) -> None:
        self.model = model
        self.value = value
        self.report = report
        self.known = known

    def complaint(self, detail: Any, path: Path) -> Complaint | None:  # pydantic's ErrorDetails
        name = _name(path)
        kind, context = detail["type"], detail.get("ctx", {})
        annotation = _annotation(self.model, path)
        given = _look_up(self.value, path)
        if kind == "extra_forbidden":
            return self._unknown_key(path)
        if kind == "missing":
            return Complaint(path[:-1], f"{name} is missing", *self._described(path))
        if kind in ("enum", "literal_error") and isinstance(given, str) and not _sounds_secret(path):
            choices = _choices(annotation)
            word = str(path[-1]) if path else "value"
            if isinstance(path[-1] if path else None, int) and len(path) > 1:
                word = f"'{path[-2]}' entry"
            listed = f"known: {', '.join(choices)}"
            return Complaint(
                path, f"unknown {word} '{excerpt(given)}'", listed, *self.report.did_you_mean(given, choices)
            )
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            return self._unknown_branch(path, str(context["discriminator"]).strip("'"), context.get("expected_tags"))
        if kind in ("value_error", "assertion_error"):
            text = str(context.get("error", "is not valid"))
            if _sounds_secret(path):
                text = "is not valid"
            return Complaint(path, f"{name}: {_one_line(text)}" if path else _one_line(text))
        if kind in _LIMITS:
            key, words = _LIMITS[kind]
            return Complaint(path, f"{name} must be {words} {context[key]}")
        if kind == "too_short" and _long_enough(given, context["min_length"]):
            # The list is long enough; its entries are what is wrong, and each is told by itself.
            return None
        if kind == "too_short":
            return Complaint(path, f"{name} needs at least {context['min_length']} entry", *self._described(path))
        if kind in ("too_long", "string_too_long"):
            return Complaint(path, f"{name} is too long: at most {context['max_length']}")
        if kind == "string_too_short":
            return Complaint(path, f"{name} must not be empty", *self._described(path))
        if kind == "string_pattern_mismatch":
            return Complaint(path, f"{name} must match {context['pattern']}", *self._described(path))
        return Complaint(
            path, f"{name}: expected {expected(annotation, self.known)}, got {kind_of(given)}", *_advice(annotation)
        )

    def _unknown_branch(self, path: Path, key: str, expected: str | None) -> Complaint:
        """A mapping whose kind stands under one of its keys, of an unknown kind or of none."""
        given = _look_up(self.value, (*path, key))
        if expected is None or not isinstance(given, str):
            return Complaint(path, f"'{key}' is missing")
        choices = re.findall(r"'([^']*)'", expected)
        listed = f"known: {', '.join(choices)}"
        hints = self.report.did_you_mean(given, choices)
        return Complaint((*path, key), f"unknown {key} '{excerpt(given)}'", listed, *hints)

    def _unknown_key(self, path: Path) -> Complaint:
        key = str(path[-1])
        owner = _model_of(_annotation(self.model, path[:-1])) or self.model
        known = list(self.known.get(owner, [*owner.model_fields]))
        hints = self.report.choice("keys", key, known)
        return Complaint(path, f"unknown key '{excerpt(key)}'", *hints)

    def _described(self, path: Path) -> tuple[str, ...]:
        owner = _model_of(_annotation(self.model, path[:-1])) if path else None
        field = owner.model_fields.get(str(path[-1])) if owner else None
        return (field.description,) if field and field.description else ()


def expected(annotation: Any, known: Mapping[type[BaseModel], Sequence[str]]) -> str:  # a type
    """What a field takes, in words: ``a list of texts``."""
    annotation = _bare(annotation)
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (tuple, list, set, frozenset):
        return f"a list of {_several(expected(arguments[0], known))}" if arguments else "a list"
    if origin is dict or annotation is dict:
        return "a mapping (name: value)"
    if origin is Literal:
        return " or ".join(f"'{choice}'" for choice in arguments)
    if origin in (Union, types.UnionType):
        words = dict.fromkeys(expected(each, known) for each in arguments if each is not type(None))
        return " or ".join(words)
    if isinstance(annotation, type):
        if issubclass(annotation, Enum):
            return "one of " + ", ".join(str(choice.value) for choice in annotation)
        if issubclass(annotation, SecretRef):
            return "{secret: <workstream>/<name>}"
        if issubclass(annotation, BaseModel):
            return f"a mapping with the keys {', '.join(known.get(annotation, annotation.model_fields))}"
    return "another kind of value"


def _several(words: str) -> str:
    article, _, noun = words.partition(" ")
    return f"{noun}s" if article == "a" and " " not in noun else f"({words})"


def _advice(annotation: Any) -> tuple[str, ...]:
    annotation = _bare(annotation)
    if _model_of(annotation) is SecretRef:
        return ("a secret's value is never written in a file; the name is looked up in the secret store",)
    if get_origin(annotation) in (tuple, list):
        return ("write a list as [one, two]",)
    return ()


def _bare(annotation: Any) -> Any:
    """The annotation without ``Annotated`` and ``| None``."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            kept = [each for each in get_args(annotation) if each is not type(None)]
            if len(kept) != 1:
                return annotation
            annotation = kept[0]
        else:
            return annotation


def _annotation(model: Any, path: Path) -> Any:
    """The type annotation at a path of a model."""
    current = model
    for part in path:
        current = _step(_bare(current), part)
    return current


def _step(annotation: Any, part: PathPart) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else Any
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict and len(arguments) == 2:
        return arguments[1]
    if origin in (tuple, list, set, frozenset) and arguments:
        return arguments[0]
    if origin in (Union, types.UnionType):
        return next((found for each in arguments if (found := _step(_bare(each), part)) is not Any), Any)
    return Any


def _model_of(annotation: Any) -> type[BaseModel] | None:
    annotation = _bare(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return next(filter(None, map(_model_of, get_args(annotation))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _choices(annotation: Any) -> list[str]:
    annotation = _bare(annotation)
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(choice.value) for choice in annotation]
    return []


def _existing(path: Path, value: object) -> Path:
    """The parts of a path that the value has; the others are the model's own."""
    kept: list[PathPart] = []
    for part in path:
        if _has(value, part):
            value = _look_up(value, (part,))
            kept.append(part)
    return tuple(kept)


def _long_enough(value: object, length: int) -> bool:
    return isinstance(value, (list, dict, str)) and len(value) >= length


def _has(value: object, part: PathPart) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _look_up(value: object, path: Path) -> object:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def _name(path: Path) -> str:
    """The last key of a path, as a person would point at it."""
    keys = [part for part in path if isinstance(part, str)]
    if not keys:
        return "the entry"
    entry = f" (entry {path[-1] + 1})" if isinstance(path[-1], int) else ""
    return f"'{excerpt(keys[-1])}'{entry}"


def _sounds_secret(path: Path) -> bool:
    return any(isinstance(part, str) and _SECRET.search(part) for part in path)


def _one_line(text: str) -> str:
    return excerpt(" ".join(text.split()), length=300)
