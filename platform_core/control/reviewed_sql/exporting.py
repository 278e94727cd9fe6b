"""Writes what an environment holds against git back into control files, for a merge request."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from platform_core.control.authorship import has_uncommitted_edits
from platform_core.control.documents import PathPart
from platform_core.control.environment import environment_names
from platform_core.control.plan.declared import Declared, read_declared
from platform_core.control.plan.difference import content_of, field_differences
from platform_core.control.plan.overlay import with_value
from platform_core.control.report import Report, excerpt
from platform_core.control.reviewed_sql.drift import Cause, DriftedRow
from platform_core.control.reviewed_sql.written import file_kind, head_of, written
from platform_core.control.reviewed_sql.yaml_edits import EditFault, YamlText, as_item, inline
from platform_core.control.shapes import VARIABLES
from platform_core.control.store.codec import Content, codec
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.rows import RowKey
from platform_core.errors import ConfigError, PlanError
from platform_core.settings import Settings

_REFERENCE = re.compile(r"\$\{var\.([a-z0-9_]+)\}")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Args:
        files: as a person reads their paths.
        rows: that git now says as the environment holds them.
        notes: what to know before it is merged.
    """

    files: tuple[Path, ...]
    rows: tuple[RowKey, ...]
    notes: tuple[str, ...]


def export_drift(settings: Settings, declared: Declared, drift: Sequence[DriftedRow]) -> Exported:
    """Write live values that were set in the environment, by overrides or by hand, into the control files.

    What git has newer than the environment stays. Files are changed together or not at all, each by atomic
    replacement; what comes of them is checked as ``edp check`` does, here and in the other environments.

    Args:
        drift: rows that are exported.

    Raises:
        PlanError: a file has uncommitted edits, or a value cannot be written without a person; nothing was written.
        ConfigError: what was written would not pass the check; it was taken back.
    """
    edits = _Edits(settings, declared)
    targets: dict[RowKey, Content | None] = {}
    for row in drift:
        if row.causes().keys() - {Cause.OLDER}:
            targets[row.key] = _target(row)
            edits.take(row, targets[row.key])
    texts = edits.changed()
    _refuse_edited(texts, settings)
    healthy = [name for name in environment_names(settings) if name != settings.environment and _passes(settings, name)]
    before = {file: file.read_bytes() if file.is_file() else None for file in texts}
    try:
        for file, text in texts.items():
            _replace(file, text.encode())
        _check(settings, declared, targets)
        for name in healthy:
            read_declared(replace(settings, environment=name))
    except BaseException:
        for file, data in before.items():
            if data is None:
                file.unlink(missing_ok=True)
            else:
                _replace(file, data)
        raise
    report = Report(settings.project)
    return Exported(
        files=tuple(sorted(report.shown(file) for file in texts)), rows=tuple(targets), notes=tuple(edits.notes)
    )


def chosen(drift: Sequence[DriftedRow], addresses: Sequence[str]) -> list[DriftedRow]:
    """Rows of these addresses, or all that have something to export.

    Raises:
        PlanError: nothing of an address can be exported.
    """
    exportable = [row for row in drift if row.causes().keys() - {Cause.OLDER}]
    if not addresses:
        return exportable
    for address in addresses:
        if any(address in (row.key.address, str(row.key)) for row in exportable):
            continue
        if any(address in (row.key.address, str(row.key)) for row in drift):
            raise PlanError(
                f"{excerpt(address)} differs because git is newer than what is applied: there is nothing to write "
                "back\n  apply it: edp plan, edp apply"
            )
        known = ", ".join(row.key.address for row in exportable) or "none"
        raise PlanError(f"{excerpt(address)} does not differ from git\n  what could be written back: {known}")
    return [row for row in exportable if {row.key.address, str(row.key)} & set(addresses)]


def _target(row: DriftedRow) -> Content | None:
    """The row as git is to say it: as git says it, with what was set in the environment."""
    if row.git is None or row.live is None:
        return row.live
    found = row.git
    for value in row.values:
        if value.cause is not Cause.OLDER:
            found = with_value(found, value.path, value.live)
    return found


@dataclass
class _Edits:
    """Texts of control files, changed in memory."""

    settings: Settings
    declared: Declared
    notes: list[str] = field(default_factory=list)
    _texts: dict[Path, YamlText] = field(default_factory=dict)
    _removed: list[tuple[Path, tuple[PathPart, ...]]] = field(default_factory=list)

    def take(self, row: DriftedRow, target: Content | None) -> None:
        """Change the files so that they say a row as it is to be.

        Raises:
            PlanError: only a person can.
        """
        try:
            if row.git is None and target is not None:
                self._create(row.key, target)
            elif target is None:
                self._remove(row.key)
            elif row.git is not None:
                self._update(row.key, row.git, target)
        except EditFault as fault:
            raise PlanError(
                f"{row.place or row.key}: {row.key} cannot be written back: {fault}\n  change the file by hand"
            ) from None

    def changed(self) -> dict[Path, str]:
        """The texts that differ from their files."""
        # From the last item of a list to the first: the places of the others stay what they are.
        for file, path in sorted(self._removed, key=lambda each: [str(each[0]), *_sortable(each[1])], reverse=True):
            try:
                self._text(file).take_out(path)
            except EditFault as fault:
                raise PlanError(f"{self._shown(file)}: an entry cannot be removed: {fault}") from None
        return {file: text.text for file, text in self._texts.items() if not file.is_file() or text.text != _read(file)}

    def _update(self, key: RowKey, git: Content, target: Content) -> None:
        file, entry = self._place(key)
        if head_of(key.kind, git) != head_of(key.kind, target):
            raise EditFault("it belongs into another file, by what stands at its top")
        base = () if key.kind == "location" else entry
        said, wanted = written(key.kind, git), written(key.kind, target)
        text = self._text(file)
        if key.kind == "ingestion" and not text.has((*base, "table")) and said.get("object") != wanted.get("object"):
            # The name came from the object.
            text.put((*base, "table"), wanted["table"])
        for path, _, now in field_differences(said, wanted):
            self._put(key, file, (*base, *path), now)

    def _put(self, key: RowKey, file: Path, path: tuple[PathPart, ...], value: Any) -> None:
        text = self._text(file)
        raw = text.raw(path)
        if raw is not None and "${var." in raw:
            self._put_variable(key, raw, value)
        elif value is None:
            text.take_out(path)
        else:
            text.put(path, value)

    def _put_variable(self, key: RowKey, raw: str, value: Any) -> None:
        """A value that is a variable's is changed there, for this environment alone."""
        match = _REFERENCE.fullmatch(raw)
        place = self.declared.written_at(RowKey("variable", key.location, match[1])) if match else None
        if match is None or place is None or not isinstance(value, (str, int, float)):
            raise EditFault(f"the value is made of variables: {excerpt(raw)}")
        file, path = place
        self._text(file).put((*path, self.settings.environment), value)
        self.notes.append(
            f"variable {match[1]} of {key.location} has a value of its own in {self.settings.environment}"
        )

    def _remove(self, key: RowKey) -> None:
        file, path = self._place(key)
        if key.kind == "location":
            raise EditFault("a location is removed with its package")
        self._removed.append((file, path))

    def _create(self, key: RowKey, target: Content) -> None:
        entry = written(key.kind, target)
        if key.kind == "location":
            raise EditFault("a location is made with its package")
        if key.kind == "workstream":
            self._text(self._place(RowKey("location", key.location, key.location))[0]).append(("workstreams",), entry)
            return
        control = self._place(RowKey("location", key.location, key.location))[0].parent
        if key.kind == "variable":
            file = control / f"{VARIABLES}.yaml"
            text = self._text(file)
            if not text.text:
                text.text = f"{VARIABLES}:\n  {inline(key.address)}: {inline(entry)}\n"
            else:
                text.put((VARIABLES, key.address), entry)
            return
        kind, head = file_kind(key.kind), head_of(key.kind, target)
        if kind is None:
            raise EditFault("there is no file for what it is")
        home = self._home(key, head)
        if home is not None:
            self._text(home).append((kind.entries,), entry)
            return
        name = "_".join(head.values())
        file = control / kind.name / f"{name}.yaml"
        if not (control / f"{kind.name}.yaml").is_file() and not (control / kind.name).is_dir():
            file = control / f"{kind.name}.yaml"
        if file.is_file():
            raise EditFault(f"{self._shown(file)} is there already, and holds something else")
        top = "".join(f"{name}: {inline(value)}\n" for name, value in head.items())
        self._text(file).text = f"{top}{kind.entries}:\n{as_item(entry, indent='  ')}\n"

    def _home(self, key: RowKey, head: Mapping[str, str]) -> Path | None:
        """A file that holds entries with the same head."""
        for other, row in self.declared.rows.items():
            if (other.kind, other.location) == (key.kind, key.location):
                place = self.declared.written_at(other)
                if place is not None and head_of(key.kind, codec(KINDS[key.kind]).content(row)) == head:
                    return place[0]
        return None

    def _place(self, key: RowKey) -> tuple[Path, tuple[PathPart, ...]]:
        found = self.declared.written_at(key)
        if found is None:
            raise EditFault("its control files are not here")
        return found

    def _text(self, file: Path) -> YamlText:
        if file not in self._texts:
            self._texts[file] = YamlText(_read(file) if file.is_file() else "")
        return self._texts[file]

    def _shown(self, file: Path) -> Path:
        return Report(self.settings.project).shown(file)


def _check(settings: Settings, before: Declared, targets: Mapping[RowKey, Content | None]) -> None:
    """Make sure that the files say what they should, and of all else what they said."""
    after = read_declared(settings, locations=sorted(before.manifests)).rows
    for key in sorted(before.rows.keys() | after.keys() | targets.keys()):
        content = content_of(key, after[key]) if key in after else None
        if key in targets:
            if content != targets[key]:
                raise PlanError(
                    f"{key} cannot be written back so that git says what the environment holds; nothing was written\n"
                    "  change its file by hand"
                )
        elif key.kind != "variable" and before.rows.get(key) != after.get(key):
            raise PlanError(
                f"writing it back would change {key}, too, which shares a variable with it; nothing was written\n"
                "  change the files by hand"
            )


def _refuse_edited(files: Iterable[Path], settings: Settings) -> None:
    report = Report(settings.project)
    edited = [str(report.shown(file)) for file in files if file.is_file() and has_uncommitted_edits(file)]
    if edited:
        raise PlanError(
            f"{', '.join(edited)}: has edits that are not committed; nothing was written\n"
            "  commit them, or put them away (git stash), so that the merge request holds the export alone"
        )


def _passes(settings: Settings, environment: str) -> bool:
    try:
        read_declared(replace(settings, environment=environment))
    except ConfigError:
        return False
    return True


def _read(file: Path) -> str:
    return file.read_bytes().decode()


def _replace(file: Path, data: bytes) -> None:
    """Put a whole new file in the place of one; nobody ever reads a part of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(file.stat().st_mode) if file.is_file() else 0o644
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sortable(path: Sequence[PathPart]) -> list[str]:
    return [f"{part:09d}" if isinstance(part, int) else part for part in path]
