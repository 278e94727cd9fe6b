"""Secrets from files of one folder, readable by their owner alone."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from pydantic import Field

from platform_core.errors import SecretError
from platform_core.plugins.interfaces import Secret, SecretStore
from platform_core.specs.base import Model

MASKING_KEY = "masking_key"
"""Name of a workstream's masking key: ``<workstream>/masking_key``."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KEY_BYTES = 32
_OTHERS = 0o077
_LARGEST = 1 << 20


class FileOptions(Model):
    """Where the files lie."""

    path: str = Field(description="Folder with one file for each secret: <workstream>/<name>.")


class FileSecrets(SecretStore):
    """Reads ``<workstream>/<name>`` from the file of that path; a last line break is not part of the value."""

    Options = FileOptions
    options: FileOptions

    def get(self, name: str) -> Secret:
        if not _NAME.fullmatch(name):
            raise SecretError(
                f"secret name '{name}' must read <workstream>/<name>, of letters, digits, '_', '-' and '.'"
            )
        file = Path(self.options.path) / name
        value = _read(file, name).rstrip(b"\r\n")
        if not value:
            raise SecretError(f"secret '{name}' is empty\n  looked at: {file}")
        return Secret(name, value)


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
    written = file.with_name(f".{MASKING_KEY}.{secrets.token_hex(8)}")
    try:
        for missing in (folder, file.parent):
            missing.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(secrets.token_hex(_KEY_BYTES).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
            # A link, unlike a rename, never replaces what is there.
            file.hardlink_to(written)
        except FileExistsError:
            return False
        finally:
            written.unlink()
    except OSError as error:
        raise SecretError(f"the masking key of '{workstream}' cannot be made in {folder}: {error.strerror}") from None
    return True


def _read(file: Path, name: str) -> bytes:
    try:
        if file.parent.is_symlink():
            raise SecretError(f"secret '{name}': {file.parent} is a symbolic link\n  put a folder in its place")
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise SecretError(
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
