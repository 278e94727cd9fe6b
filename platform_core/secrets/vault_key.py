"""Finds the key of the vault, in a file of its own or in an environment variable."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from platform_core.errors import PluginError, SecretError
from platform_core.secrets.private_files import create_file, open_to_others, read_file
from platform_core.secrets.vault_format import KEY_BYTES, Cipher
from platform_core.settings import environment_value

_LARGEST = 4096


@dataclass(frozen=True, kw_only=True)
class VaultKey:
    """Where the key lies; one of both is given."""

    file: str | None
    variable: str | None

    @property
    def place(self) -> str:
        """Where it was looked for, for a person."""
        return self.file or f"environment variable {self.variable}"

    def cipher(self) -> Cipher | None:
        """What opens the vault; None where the key's file is missing.

        Raises:
            SecretError: what is there is no key, or others can read it.
            PluginError: the package that encrypts is missing.
        """
        text = self._from_file(Path(self.file)) if self.file else self._from_variable(str(self.variable))
        if text is None:
            return None
        try:
            key = bytes.fromhex(text.strip().decode("ascii"))
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise SecretError(
                f"the key of the vault is no key: it must be {KEY_BYTES * 2} hex digits\n  looked at: {self.place}\n"
                "  put the vault's own key there; a new one does not open it"
            )
        return _cipher_of(key)

    def make(self) -> bool:
        """Make the key's file where there is none; returns whether it was made.

        Raises:
            OSError: it cannot be written.
        """
        return self.file is not None and create_file(Path(self.file), os.urandom(KEY_BYTES).hex().encode() + b"\n")

    def _from_variable(self, name: str) -> bytes:
        value = environment_value(name)
        if not value:
            raise SecretError(
                f"the key of the vault is not set\n  looked at: environment variable {name}\n"
                "  set it where this process is started"
            )
        return os.fsencode(value)

    def _from_file(self, file: Path) -> bytes | None:
        try:
            # Mounted secrets are links.
            data = read_file(file, largest=_LARGEST, linked=True)
            mode = None if data is None else open_to_others(file)
        except OSError as error:
            raise SecretError(f"the key of the vault cannot be read: {error.strerror}\n  looked at: {file}") from None
        if mode is not None:
            raise SecretError(
                f"the key of the vault can be read by others: {file} (mode {mode:04o})\n"
                f"  chmod 600 {file}, and set every secret anew if others may have read it"
            )
        return data


def _cipher_of(key: bytes) -> Cipher:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise PluginError(
            "secret store 'vault' needs the package cryptography, which is not installed\n"
            "  install it: pip install cryptography"
        ) from None
    return Cipher(key)
