"""Makes, rotates and retires masking keys in the stores that an installation keeps by itself."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod

MASKING_KEY = "masking_key"
"""Name of a workstream's masking key: ``<workstream>/masking_key``."""

PREVIOUS_MASKING_KEY = "masking_key_previous"
"""Name of the key before it, kept while tables may still hold tokens of it."""

_KEY_BYTES = 32


def new_masking_key() -> bytes:
    """256 random bits as 64 hex digits."""
    return secrets.token_hex(_KEY_BYTES).encode()


class MaskingKeyKeeper(ABC):
    """A store in which the platform makes masking keys itself; other stores are filled by their owners."""

    @abstractmethod
    def prepare(self) -> tuple[str, ...]:
        """Make what the store itself needs where it is missing; returns a line for each thing done.

        Raises:
            SecretError: it cannot be made.
        """

    @abstractmethod
    def create_masking_key(self, workstream: str) -> bool:
        """Make the masking key of a workstream where it is missing; returns whether one was made.

        Raises:
            SecretError: the store cannot be written.
        """

    @abstractmethod
    def rotate_masking_key(self, workstream: str) -> None:
        """Put a new masking key in the place of a workstream's, which becomes the previous one.

        Raises:
            SecretError: there is no key yet, the previous one is still kept, or the store cannot be written.
        """

    @abstractmethod
    def retire_masking_key(self, workstream: str) -> bool:
        """Remove the previous masking key of a workstream; returns whether there was one.

        Raises:
            SecretError: the store cannot be written.
        """

    @abstractmethod
    def place(self) -> str:
        """Where the keys lie, for a person."""
