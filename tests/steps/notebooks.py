"""Notebooks as a person saves them."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent


def notebook(*cells: str, parameters: str | None = "horizon = 1") -> dict[str, object]:
    """A notebook of code cells; the first is tagged ``parameters``, unless that is None."""
    tagged = [] if parameters is None else [_cell(parameters, tags=["parameters"])]
    return {
        "cells": [*tagged, *(_cell(dedent(text).strip()) for text in cells)],
        "metadata": {"kernelspec": {"name": "somebody", "display_name": "Somebody's", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def save(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _cell(text: str, *, tags: list[str] | None = None) -> dict[str, object]:
    return {
        "cell_type": "code",
        "id": f"cell-{abs(hash(text)) % 10**8}",
        "execution_count": None,
        "metadata": {"tags": tags} if tags else {},
        "outputs": [],
        "source": text.splitlines(keepends=True),
    }
