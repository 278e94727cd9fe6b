"""Collects everything that is wrong with control files, so that a person hears of it in one go."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path

from platform_core.errors import ConfigError, Issue, Place
from platform_core.settings import WORKSPACE_FILE

MAX_ISSUES_PER_FILE = 100
_MAX_LISTED = 20
_MAX_COMPARISONS = 20_000
_LONGEST_WORD = 64
_LONGEST_LINE = 500


class Report:
    """Issues of one or more folders.

    Args:
        base: folder that files are shown relative to, where they lie below it.
    """

    def __init__(self, base: Path | None = None) -> None:
        self._bases = [folder for folder in (Path.cwd(), base) if folder is not None]
        self._issues: dict[Path, list[Issue]] = {}
        # Finding similar words among thousands takes time; a folder full of errors must not take minutes.
        self._comparisons_left = _MAX_COMPARISONS

    def __bool__(self) -> bool:
        return bool(self._issues)

    def add(self, file: Path, line: int, message: str, *hints: str) -> None:
        """Keep one issue.

        Args:
            file: absolute path.
            line: counted from 1; 0 means the file as a whole.
            message: what is wrong, in one line.
            hints: what was looked at, what is known, what to do.
        """
        issues = self._issues.setdefault(file, [])
        place = Place(self.shown(file), line)
        if len(issues) < MAX_ISSUES_PER_FILE:
            # Names of files that people and tools wrote end up in messages, whatever they hold.
            lines = tuple(excerpt(hint, length=_LONGEST_LINE) for hint in hints)
            issues.append(Issue(place, excerpt(message, length=_LONGEST_LINE), lines))
        elif len(issues) == MAX_ISSUES_PER_FILE:
            text = f"has more than {MAX_ISSUES_PER_FILE} problems; the others are not shown"
            issues.append(Issue(Place(place.file), text))

    def is_full(self, file: Path) -> bool:
        """Whether nothing more is said of a file; hints for it need not be looked for."""
        return len(self._issues.get(file, ())) > MAX_ISSUES_PER_FILE

    def add_once(self, file: Path, line: int, message: str, *hints: str) -> None:
        """Keep one issue, unless the same is said of this line already."""
        said = {(issue.place.line, issue.message) for issue in self._issues.get(file, ())}
        if (line, message) not in said:
            self.add(file, line, message, *hints)

    def add_at(self, place: Place, message: str, *hints: str) -> None:
        """Keep one issue at a place with an absolute path."""
        self.add(place.file, place.line, message, *hints)

    def take(self, error: ConfigError) -> None:
        """Keep the issues of an error that was raised elsewhere."""
        for issue in error.issues:
            self.add(issue.place.file, issue.place.line, issue.message, *issue.hints)

    def shown(self, file: Path) -> Path:
        """The path as a person should read it: relative to the current folder or the project, if below it."""
        for base in self._bases:
            if file.is_relative_to(base):
                return file.relative_to(base)
        return file

    def shown_place(self, place: Place | None) -> str:
        """A place as a person should read it."""
        return str(Place(self.shown(place.file), place.line)) if place else "elsewhere"

    def did_you_mean(self, word: str, known: Collection[str]) -> tuple[str, ...]:
        """A hint that names the most similar known word, or none."""
        if len(word) > _LONGEST_WORD:
            return ()
        # Among thousands only words of about the same letters are worth the comparison.
        letters = set(word)
        near = [each for each in known if abs(len(each) - len(word)) <= 3 and len(letters ^ set(each)) <= 4]
        self._comparisons_left -= len(near)
        if self._comparisons_left < 0:
            return ()
        close = difflib.get_close_matches(word, near, n=1)
        return (f"did you mean '{close[0]}'?",) if close else ()

    def known(self, what: str, names: Iterable[str]) -> str:
        """A hint that lists what is known; a long list is cut."""
        listed = sorted(set(names))
        shown = ", ".join(listed[:_MAX_LISTED]) or "none"
        rest = f", … ({len(listed):,} in all)" if len(listed) > _MAX_LISTED else ""
        return f"known {what}: {shown}{rest}"

    def choice(self, what: str, word: str, names: Collection[str]) -> tuple[str, ...]:
        """Hints for a word that is none of the known ones: what is known, and which of it is most similar."""
        return (self.known(what, names), *self.did_you_mean(word, names))

    @property
    def issues(self) -> tuple[Issue, ...]:
        """All issues, each once, in order of file and line."""
        return tuple(sorted({issue for issues in self._issues.values() for issue in issues}))

    def raise_if_any(self) -> None:
        """Raise ConfigError with all issues, if there are any."""
        if self._issues:
            raise ConfigError(self.issues)


def excerpt(text: str, *, length: int = 60) -> str:
    """A short text of a file, fit to be shown on one line."""
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return cut if cut.isprintable() else "".join(each if each.isprintable() else "?" for each in cut)


def project_folder(start: Path) -> Path | None:
    """The nearest folder, from the given one upwards, that holds the workspace file; None where there is none."""
    return next((folder for folder in (start, *start.parents) if (folder / WORKSPACE_FILE).is_file()), None)
