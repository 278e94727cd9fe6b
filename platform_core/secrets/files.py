"""Secrets from files of one folder, readable by their owner alone."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from platform_core.errors import SecretError, SecretMissing
from platform_core.plugins.interfaces import Secret, SecretEntry, SecretStore
from platform_core.secrets.masking_keys import MASKING_KEY, PREVIOUS_MASKING_KEY, MaskingKeyKeeper, new_masking_key
from platform_core.secrets.names import check_name, check_value, is_secret_name
from platform_core.specs.base import Model

_OTHERS = 0o077
_LARGEST = 1 << 20


class FileOptions(Model):
    """Where the files lie."""

    path: str = Field(description="Folder with one file for each secret: <workstream>/<name>.")


class FileSecrets(SecretStore, MaskingKeyKeeper):
    """Reads ``<workstream>/<name>`` from the file of that path; a last line break is not part of the value.

    Values lie in clear: whoever reads the folder or a backup of it has them. The store ``vault`` encrypts them.
    """

    Options = FileOptions
    options: FileOptions
    writable = True
    listable = True

    def get(self, name: str) -> Secret:
        check_name(name)
        file = self._folder / name
        value = _read(file, name).rstrip(b"\r\n")
        if not value:
            raise SecretError(f"secret '{name}' is empty\n  looked at: {file}")
        return Secret(name, value)

    def set(
        self, name: str, value: bytes, *, owner: str | None = None, expires_at: dt.datetime | None = None
    ) -> SecretEntry:
        check_name(name)
        check_value(name, value)
        if owner is not None or expires_at is not None:
            raise SecretError(
                f"secret '{name}': the store 'files' keeps no owner and no expiry; nothing was changed\n"
                "  leave them out, or use the store 'vault'; see docs/how-to/secrets.md"
            )
        if value.endswith((b"\n", b"\r")):
            raise SecretError(
                f"secret '{name}': the value ends with a line break, which the store 'files' does not keep; "
                "nothing was changed"
            )
        file = self._folder / name
        try:
            _make_folders(self._folder, file.parent)
            with _alone(file.parent), _new_file(file, value) as written:
                written.rename(file)
                _flush(file.parent)
        except OSError as error:
            raise SecretError(f"secret '{name}' cannot be written: {error.strerror}\n  looked at: {file}") from None
        return SecretEntry(name=name, created_at=_changed_at(file))

    def remove(self, name: str) -> bool:
        check_name(name)
        file = self._folder / name
        try:
            if not file.parent.is_dir():
                return False
            with _alone(file.parent):
                if not file.exists():
                    return False
                file.unlink()
                _flush(file.parent)
        except OSError as error:
            raise SecretError(f"secret '{name}' cannot be removed: {error.strerror}\n  looked at: {file}") from None
        return True

    def entries(self) -> list[SecretEntry]:
        try:
            names = sorted(
                name
                for file in self._folder.glob("*/*")
                if file.is_file() and is_secret_name(name := f"{file.parent.name}/{file.name}")
            )
            return [SecretEntry(name=name, created_at=_changed_at(self._folder / name)) for name in names]
        except OSError as error:
            raise SecretError(f"the folder of secrets cannot be read: {error.strerror}: {self._folder}") from None

    def prepare(self) -> tuple[str, ...]:
        return ()

    def create_masking_key(self, workstream: str) -> bool:
        return create_masking_key(self._folder, workstream)

    def rotate_masking_key(self, workstream: str) -> None:
        rotate_masking_key(self._folder, workstream)

    def retire_masking_key(self, workstream: str) -> bool:
        return retire_masking_key(self._folder, workstream)

    def place(self) -> str:
        return self.options.path

    @property
    def _folder(self) -> Path:
        return Path(self.options.path)


def create_masking_key(folder: Path, workstream: str) -> bool:
    """Make the masking key of a workstream where it is missing; an existing key is never touched.

    Args:
        folder: the folder of :class:`FileSecrets`; made with mode 0700 when it is missing.

    Returns:
        Whether a key was made.

    Raises:
        SecretError: the folder cannot be written.
    """
    file = folder / workstream / MASKING_KEY
    try:
        _make_folders(folder, file.parent)
        with _new_file(file, new_masking_key()) as written:
            return _linked(file, written)
    except OSError as error:
        raise SecretError(f"the masking key of '{workstream}' cannot be made in {folder}: {error.strerror}") from None


def rotate_masking_key(folder: Path, workstream: str) -> None:
    """Put a new masking key in the place of a workstream's, which becomes the previous one.

    Loads that are under way end with the key they began with. A process that is killed in here leaves the old key in
    its place, or the new one with the old one kept.

    Args:
        folder: the folder of :class:`FileSecrets`.

    Raises:
        SecretError: there is no key yet, the previous one is still kept, or the folder cannot be written.
    """
    file = folder / workstream / MASKING_KEY
    previous = file.with_name(PREVIOUS_MASKING_KEY)
    FileSecrets(FileOptions(path=str(folder))).get(f"{workstream}/{MASKING_KEY}")
    try:
        with _alone(file.parent):
            # Both are one file where an earlier rotation was killed half-way.
            if previous.exists() and not previous.samefile(file):
                raise SecretError(
                    f"the previous masking key of '{workstream}' is still kept: {previous}\n"
                    "  tables may hold tokens of it; reload them, then run "
                    f"`edp keys retire {workstream}` and rotate again"
                )
            if not previous.exists():
                previous.hardlink_to(file)
            with _new_file(file, new_masking_key()) as written:
                written.rename(file)
            _flush(file.parent)
    except OSError as error:
        raise SecretError(
            f"the masking key of '{workstream}' cannot be rotated in {folder}: {error.strerror}"
        ) from None


def retire_masking_key(folder: Path, workstream: str) -> bool:
    """Remove the previous masking key of a workstream; from then on nobody can tell whose its tokens were.

    Returns:
        Whether there was one.

    Raises:
        SecretError: the folder cannot be written, or the current key is that file still.
    """
    file = folder / workstream / MASKING_KEY
    previous = file.with_name(PREVIOUS_MASKING_KEY)
    try:
        with _alone(file.parent):
            if not previous.exists():
                return False
            if file.exists() and previous.samefile(file):
                raise SecretError(
                    f"the rotation of the masking key of '{workstream}' was cut off\n"
                    f"  run `edp keys rotate {workstream}` again first"
                )
            previous.unlink()
            _flush(file.parent)
    except OSError as error:
        raise SecretError(f"{previous} cannot be removed: {error.strerror}") from None
    return True


def _make_folders(*folders: Path) -> None:
    for missing in folders:
        missing.mkdir(mode=0o700, parents=True, exist_ok=True)


def _changed_at(file: Path) -> dt.datetime:
    return dt.datetime.fromtimestamp(file.stat().st_mtime, dt.UTC)


def _linked(file: Path, to: Path) -> bool:
    """Give a file a second name, unless that is taken: a link, unlike a rename, never replaces what is there."""
    try:
        file.hardlink_to(to)
    except FileExistsError:
        return False
    return True


@contextmanager
def _new_file(beside: Path, value: bytes) -> Iterator[Path]:
    """A new file with a value, of mode 0600, that is gone after the block unless it was moved."""
    written = beside.with_name(f".{beside.name}.{secrets.token_hex(8)}")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(value + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        yield written
    finally:
        written.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; another process waits."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(file: Path, name: str) -> bytes:
    try:
        if file.parent.is_symlink():
            raise SecretError(f"secret '{name}': {file.parent} is a symbolic link\n  put a folder in its place")
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise SecretMissing(
            f"secret '{name}' is missing\n  looked at: {file}\n"
            "  write its value into that file, of mode 0600; masking keys are made by `edp setup`"
        ) from None
    except OSError as error:
        raise SecretError(f"secret '{name}' cannot be read: {error.strerror}\n  looked at: {file}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SecretError(f"secret '{name}': {file} is no file")
        if status.st_mode & _OTHERS:
            raise SecretError(
                f"secret '{name}': {file} can be read by others (mode {stat.S_IMODE(status.st_mode):04o})\n"
                f"  chmod 600 {file}, and replace the secret if others may have read it"
            )
        return os.read(descriptor, _LARGEST)
    finally:
        os.close(descriptor)
