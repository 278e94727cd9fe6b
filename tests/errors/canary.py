"""A value that no message may hold, and all the ways in which a message is shown or stored."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Callable

from dagster._utils.error import serializable_error_info_from_exc_info

CANARY = "canary-1f0a6b"
CANARY_NUMBER = 9_182_736_455_463_728
"""The same for columns of numbers."""

MARKS = (CANARY, str(CANARY_NUMBER), str(CANARY_NUMBER // 10))


def raised(work: Callable[[], object]) -> Exception:
    """What a piece of work raises; an error if it raises nothing."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - drivers raise what they like
        return error
    raise AssertionError("the engine was to refuse this and did not")


def shown(error: BaseException) -> str:
    """All that becomes of an error: its text, traceback with causes, Dagster's event of it, and a log line."""
    stream = io.StringIO()
    log = logging.Logger("canary")
    log.addHandler(logging.StreamHandler(stream))
    log.error("a load failed", exc_info=error)
    stored = serializable_error_info_from_exc_info((type(error), error, error.__traceback__)).to_string()
    return "\n".join(
        [str(error), repr(error), repr(error.args), *traceback.format_exception(error), stored, stream.getvalue()]
    )


def leaks(text: str) -> bool:
    """Whether a text holds the value."""
    return any(mark in text for mark in MARKS)
