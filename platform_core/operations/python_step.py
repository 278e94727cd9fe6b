"""Call a team's function, and say where it failed without repeating what it was working on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import CodeType
from typing import Any

import pyarrow as pa

from platform_core.errors import PlatformError, StepError, redacted
from platform_core.operations.arrow_rows import stream_of
from platform_core.operations.step_context import StepContext

Function = Callable[[StepContext], Any]

_PLATFORM = Path(__file__).resolve().parents[1]

_SPEAKS_OF_CODE = (AttributeError, ImportError, NameError)
"""Exceptions of Python whose text names code, never data."""


def loaded(name: str, *, where: str) -> Function:
    """The function named ``package.module:function``.

    Raises:
        StepError: it cannot be imported, or is no function.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # noqa: BLE001 - a team's module may raise anything
        raise StepError(
            f"{where}: module '{module_name}' cannot be imported\n  {_said(error)}{_at(error, None)}"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module_name
        ]
        raise StepError(
            f"{where}: module '{module_name}' has no function '{function_name}'\n"
            f"  functions there: {', '.join(sorted(known)) or 'none'}"
        )
    return function  # type: ignore[no-any-return]


def call(function: Function, context: StepContext, *, root: Path, where: str) -> pa.RecordBatchReader | None:
    """What the function makes, as a stream; None where it makes no table.

    An exception becomes a StepError with its class and the line of the team's code. Its text passes only where it
    was written for readers (our own errors) or speaks of code: any other may quote a value of a row.

    Args:
        function: takes the context.
        context: of the step.
        root: folder of the team's code, for the line that is named.
        where: the step, for messages.
    """
    with _errors_of_the_team(root=root, where=where):
        made = function(context)
        if made is None:
            return None
        schema, batches = stream_of(made)
    return pa.RecordBatchReader.from_batches(schema, _guarded(batches, root=root, where=where))


def _guarded(batches: Iterator[pa.RecordBatch], *, root: Path, where: str) -> Iterator[pa.RecordBatch]:
    with _errors_of_the_team(root=root, where=where):
        yield from batches


@contextmanager
def _errors_of_the_team(*, root: Path, where: str) -> Iterator[None]:
    try:
        yield
    except StepError as error:
        text = str(error)
        raise StepError(text if text.startswith(where) else f"{where}: {text}") from None
    except PlatformError:
        raise
    except Exception as error:  # noqa: BLE001 - a team's function may raise anything
        raise StepError(f"{where}: {_said(error)}{_at(error, root)}{_advice(error)}") from None


def _advice(error: Exception) -> str:
    return "" if _speaks_of_code(error) else "\n  raise a StepError instead where its text may be shown"


def _said(error: Exception) -> str:
    if _speaks_of_code(error):
        return f"{type(error).__name__}: {error}"
    return redacted(error)


def _speaks_of_code(error: Exception) -> bool:
    """Whether the text of an error names code; ``getattr`` and ``import_module`` look for names that data may give."""
    if not isinstance(error, _SPEAKS_OF_CODE):
        return False
    name = getattr(error, "name", None)
    if not isinstance(name, str):
        return isinstance(error, ImportError)
    written = {part for frame, _ in walk_tb(error.__traceback__) for part in _names(frame.f_code)}
    return set(name.split(".")) <= written or name in written


def _names(code: CodeType) -> set[str]:
    names = (*code.co_names, *code.co_varnames, *code.co_freevars)
    return {part for name in names for part in (name, *name.split("."))}


def _at(error: Exception, root: Path | None) -> str:
    """The innermost line of the team's own code that was running; else of any code but the platform's."""
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__)]
    own = [frame for frame in frames if root is not None and frame[0].is_relative_to(root.resolve())]
    foreign = [frame for frame in frames if not frame[0].is_relative_to(_PLATFORM) and frame[0].is_file()]
    for file, line in reversed(own or foreign):
        return f"\n  at {file}:{line}"
    return ""
