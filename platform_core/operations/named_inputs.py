"""The inputs of a step by name, whatever stands for a table there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from platform_core.errors import StepError
from platform_core.specs.table import TableRef


class Input(Protocol):
    """What is known to be some table."""

    @property
    def ref(self) -> TableRef: ...


T = TypeVar("T", bound=Input)


class NamedInputs(Mapping[str, T]):
    """Inputs by the names under which their step declares them, or by their full names."""

    def __init__(self, declared: Mapping[str, T]) -> None:
        self._declared = dict(declared)
        self._full = {str(table.ref): table for table in declared.values()}

    def __getitem__(self, name: str) -> T:
        found = self._declared.get(name) or self._full.get(name)
        if found is None:
            lines = [f"'{name}' is no input of this step", f"inputs: {', '.join(self._declared) or 'none'}"]
            if close := difflib.get_close_matches(name, [*self._declared, *self._full], n=1):
                lines.append(f"did you mean '{close[0]}'?")
            raise StepError("\n  ".join([*lines, "declare it in 'depends_on'"]))
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._declared or name in self._full

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)
