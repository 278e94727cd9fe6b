"""Secrets in one encrypted file, whose key lies elsewhere."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from platform_core.errors import SecretError, SecretMissing
from platform_core.plugins.interfaces import Secret, SecretEntry, SecretStore
from platform_core.secrets.files import FileSecrets
from platform_core.secrets.masking_keys import MASKING_KEY, PREVIOUS_MASKING_KEY, MaskingKeyKeeper, new_masking_key
from platform_core.secrets.names import check_name, check_value
from platform_core.secrets.private_files import locked, read_file, remove_leftovers, replace_file
from platform_core.secrets.vault_format import (
    ABSENT,
    Cipher,
    Contents,
    Sealed,
    VaultFaultError,
    WrongKeyError,
    new_vault_id,
)
from platform_core.secrets.vault_key import VaultKey
from platform_core.specs.base import Model

_LARGEST = 256 << 20
_PATIENCE_SECONDS = 60.0
_AGAIN_SECONDS = 0.02
_RESTORED = "restore the newest copy, or see 'When something is lost' in docs/how-to/secrets.md"


class VaultOptions(Model):
    """Where the vault, its key and its generation are."""

    path: str = Field(description="The encrypted file; `edp setup` makes it.")
    key_file: str | None = Field(
        default=None,
        description="File with the key as 64 hex digits, of mode 0600; `edp setup` makes it. Keep it on another disk, "
        "and out of the backups that hold the vault.",
    )
    key_variable: str | None = Field(
        default=None, description="Environment variable that holds the key, in place of key_file.", min_length=1
    )
    generation_file: str | None = Field(
        default=None,
        description="File that tells the newest generation of the vault, by which an old copy of the vault is "
        "recognised. Default: beside the key's file, or beside the vault where the key is in a variable.",
    )
    former_folder: str | None = Field(
        default=None,
        description="Folder of the store `files` that was used before; its secrets are taken over when the vault is "
        "made.",
    )

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if (self.key_file is None) == (self.key_variable is None):
            raise ValueError("give one of key_file and key_variable")
        return self


class VaultSecrets(SecretStore, MaskingKeyKeeper):
    """Keeps secrets of this machine; readers never wait, writers wait for each other."""

    Options = VaultOptions
    options: VaultOptions
    writable = True
    listable = True
    keeps_metadata = True

    def get(self, name: str) -> Secret:
        check_name(name)
        cipher = self._cipher()
        contents = self._contents(cipher)
        sealed = contents.secrets.get(name)
        if sealed is None:
            raise SecretMissing(
                f"secret '{name}' is missing\n  looked at: {self._path}\n  set it: edp secrets set {name}"
            )
        return Secret(name, self._value(cipher, contents, name), expires_at=sealed.expires_at)

    def set(
        self, name: str, value: bytes, *, owner: str | None = None, expires_at: dt.datetime | None = None
    ) -> SecretEntry:
        check_name(name)
        check_value(name, value)
        with self._changing() as (cipher, contents):
            before = contents.secrets.get(name)
            owner = owner or (before.owner if before else None)
            sealed = self._sealed(cipher, contents, name, value, owner=owner, expires_at=expires_at)
            self._write(cipher, contents, {**contents.secrets, name: sealed})
        return _entry(name, sealed)

    def remove(self, name: str) -> bool:
        check_name(name)
        with self._changing() as (cipher, contents):
            if name not in contents.secrets:
                return False
            self._write(cipher, contents, {key: kept for key, kept in contents.secrets.items() if key != name})
        return True

    def entries(self) -> list[SecretEntry]:
        contents = self._contents(self._cipher())
        return [_entry(name, sealed) for name, sealed in sorted(contents.secrets.items())]

    def prepare(self) -> tuple[str, ...]:
        done: list[str] = []
        with self._lock():
            there = self._read(self._path) is not None
            if not there and self._read(self._witness) is None and self._key.make():
                done.append(f"made the key of the vault: {self.options.key_file}; keep a copy of it in another place")
            cipher = self._cipher()
            if there:
                return tuple(done)
            self._refuse_lost(cipher)
            new = Contents(vault=new_vault_id(), generation=0, secrets={}, digest=ABSENT)
            taken = self._former(cipher, new)
            self._write(cipher, new, taken)
            done.append(f"made the vault of secrets: {self._path}")
            if taken:
                done.append(
                    f"took over {_counted(taken)} from {self.options.former_folder}; they still lie there in clear: "
                    "remove the folder once the vault and its key are backed up"
                )
        return tuple(done)

    def create_masking_key(self, workstream: str) -> bool:
        name = f"{workstream}/{MASKING_KEY}"
        with self._changing() as (cipher, contents):
            if name in contents.secrets:
                return False
            sealed = self._sealed(cipher, contents, name, new_masking_key())
            self._write(cipher, contents, {**contents.secrets, name: sealed})
        return True

    def rotate_masking_key(self, workstream: str) -> None:
        name, previous = f"{workstream}/{MASKING_KEY}", f"{workstream}/{PREVIOUS_MASKING_KEY}"
        with self._changing() as (cipher, contents):
            if name not in contents.secrets:
                raise SecretMissing(f"secret '{name}' is missing\n  looked at: {self._path}\n  make it: edp setup")
            if previous in contents.secrets:
                raise SecretError(
                    f"the previous masking key of '{workstream}' is still kept: {previous}\n"
                    "  tables may hold tokens of it; reload them, then run "
                    f"`edp keys retire {workstream}` and rotate again"
                )
            old = self._sealed(cipher, contents, previous, self._value(cipher, contents, name))
            new = self._sealed(cipher, contents, name, new_masking_key(), owner=contents.secrets[name].owner)
            self._write(cipher, contents, {**contents.secrets, previous: old, name: new})

    def retire_masking_key(self, workstream: str) -> bool:
        return self.remove(f"{workstream}/{PREVIOUS_MASKING_KEY}")

    def place(self) -> str:
        return self.options.path

    def accept_restored(self, generation: int) -> int:
        """Take the vault as it is for the newest one, after a person restored it from a copy.

        What was set after that copy is not in it.

        Args:
            generation: of the restored vault, as the message about it says: proof that the person has read it.

        Returns:
            The new generation.

        Raises:
            SecretError: the vault is of another generation, or cannot be opened.
        """
        with self._lock():
            cipher = self._cipher()
            data = self._read(self._path)
            if data is None:
                raise SecretError(f"there is no vault\n  looked at: {self._path}\n  restore it first")
            contents = self._unpacked(cipher, data)
            if contents.generation != generation:
                raise SecretError(
                    f"the vault {self._path} is of generation {contents.generation}, not {generation}; "
                    "nothing was changed"
                )
            known = self._read(self._witness)
            try:
                newest = max(cipher.accepted(known)[1].values(), default=0) if known else 0
            except VaultFaultError:
                newest = 0  # the person has just said that this vault counts, whatever that file told
            after = max(generation, newest)
            self._write(cipher, contents, contents.secrets, after=after)
            return after + 1

    @property
    def _key(self) -> VaultKey:
        return VaultKey(file=self.options.key_file, variable=self.options.key_variable)

    def _cipher(self) -> Cipher:
        cipher = self._key.cipher()
        if cipher is not None:
            return cipher
        if self._read(self._path) is None and self._read(self._witness) is None:
            raise SecretMissing(f"there is no vault of secrets yet\n  looked at: {self._key.place}\n  run `edp setup`")
        raise SecretError(
            f"the key of the vault is gone: {self._key.place}\n"
            f"  restore it; without it no secret in {self._path} can be read"
        )

    @property
    def _path(self) -> Path:
        return Path(self.options.path)

    @property
    def _witness(self) -> Path:
        if self.options.generation_file is not None:
            return Path(self.options.generation_file)
        return Path(f"{self.options.key_file or self.options.path}.generation")

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Nobody else writes; errors of the disk are told as ours."""
        try:
            with locked(Path(f"{self._path}.lock"), patience=_PATIENCE_SECONDS):
                yield
        except TimeoutError:
            raise SecretError(
                f"the vault {self._path} is being written by another process for {_PATIENCE_SECONDS:g} s; "
                "nothing was changed\n  see what holds that file's .lock, then try again"
            ) from None
        except OSError as error:
            raise SecretError(
                f"the vault {self._path} cannot be written: {error.strerror}\n"
                f"  looked at: {error.filename or self._path.parent}\n  nothing was changed"
            ) from None

    @contextmanager
    def _changing(self) -> Iterator[tuple[Cipher, Contents]]:
        """The contents as nobody else changes them until the end of the block."""
        with self._lock():
            cipher = self._cipher()
            yield cipher, self._contents(cipher)

    def _contents(self, cipher: Cipher) -> Contents:
        """The vault as it is, once it is known to be the newest."""
        seen: tuple[bytes | None, bytes | None] | None = None
        while True:
            found = self._read(self._path), self._read(self._witness)
            try:
                return self._judged(cipher, *found)
            except SecretError:
                # Between the two a writer may have replaced both; what is the same twice was so at one moment.
                if found == seen:
                    raise
            seen = found
            time.sleep(_AGAIN_SECONDS)

    def _judged(self, cipher: Cipher, data: bytes | None, witness: bytes | None) -> Contents:
        if data is None:
            if witness is None or ABSENT in self._accepted(cipher, witness)[1]:
                raise SecretMissing(f"there is no vault of secrets yet\n  looked at: {self._path}\n  run `edp setup`")
            raise SecretError(self._lost(cipher, witness))
        contents = self._unpacked(cipher, data)
        accept = (
            "if you restored it on purpose, and know what was set since: "
            f"edp secrets accept-restored {contents.generation}"
        )
        if witness is None:
            raise SecretError(
                f"nothing tells whether the vault {self._path} is the newest: {self._witness} is missing\n"
                f"  restore that file; {accept}"
            )
        vault, accepted = self._accepted(cipher, witness)
        if vault != contents.vault:
            raise SecretError(
                f"the vault {self._path} is not the one that {self._witness} tells of\n"
                f"  see that both options name the right files; {accept}"
            )
        if accepted.get(contents.digest) != contents.generation:
            newest = max(accepted.values(), default=0)
            raise SecretError(
                f"the vault {self._path} is an old copy, or another one: it is of generation {contents.generation}, "
                f"and the newest that was written is {newest}\n"
                f"  looked at: {self._witness}\n  restore the newest copy; {accept}"
            )
        return contents

    def _unpacked(self, cipher: Cipher, data: bytes) -> Contents:
        try:
            return cipher.unpack(data)
        except WrongKeyError as error:
            raise SecretError(
                f"the vault {self._path} {error}\n  looked at: {self._key.place}\n"
                "  give the key that it was written with; without it no secret in it can be read"
            ) from None
        except VaultFaultError as error:
            raise SecretError(f"the vault {self._path} {error}\n  {_RESTORED}") from None

    def _accepted(self, cipher: Cipher, witness: bytes) -> tuple[str, dict[str, int]]:
        try:
            return cipher.accepted(witness)
        except VaultFaultError as error:
            raise SecretError(
                f"the generation of the vault is unknown: {self._witness} {error}\n  {_RESTORED}"
            ) from None

    def _lost(self, cipher: Cipher, witness: bytes) -> str:
        newest = max(self._accepted(cipher, witness)[1].values(), default=0)
        return (
            f"the vault {self._path} is gone: generation {newest} of it was written\n"
            f"  looked at: {self._witness}\n  {_RESTORED}"
        )

    def _refuse_lost(self, cipher: Cipher) -> None:
        """A new vault is never made in the place of a lost one: new masking keys would be made with it."""
        witness = self._read(self._witness)
        if witness is not None and ABSENT not in self._accepted(cipher, witness)[1]:
            raise SecretError(self._lost(cipher, witness))

    def _value(self, cipher: Cipher, contents: Contents, name: str) -> bytes:
        try:
            return cipher.open(contents.vault, name, contents.secrets[name])
        except VaultFaultError as error:
            raise SecretError(f"secret '{name}' in the vault {self._path} {error}\n  {_RESTORED}") from None

    def _sealed(
        self,
        cipher: Cipher,
        contents: Contents,
        name: str,
        value: bytes,
        *,
        owner: str | None = None,
        expires_at: dt.datetime | None = None,
    ) -> Sealed:
        generation = contents.generation + 1
        return cipher.seal(contents.vault, name, value, generation=generation, owner=owner, expires_at=expires_at)

    def _write(
        self, cipher: Cipher, before: Contents, secrets: Mapping[str, Sealed], *, after: int | None = None
    ) -> None:
        """Replace the vault; killed at any point, the old one or the new one is there and passes for the newest."""
        generation = (before.generation if after is None else after) + 1
        data = cipher.pack(before.vault, generation, secrets)
        digest = cipher.unpack(data).digest
        remove_leftovers(self._path)
        remove_leftovers(self._witness)
        replace_file(
            self._witness, cipher.witness(before.vault, {before.digest: before.generation, digest: generation})
        )
        replace_file(self._path, data)
        replace_file(self._witness, cipher.witness(before.vault, {digest: generation}))

    def _read(self, file: Path) -> bytes | None:
        try:
            return read_file(file, largest=_LARGEST)
        except OSError as error:
            raise SecretError(
                f"{file} cannot be read: {error.strerror}\n  it is part of the vault of secrets"
            ) from None

    def _former(self, cipher: Cipher, new: Contents) -> dict[str, Sealed]:
        folder = self.options.former_folder
        if folder is None or not Path(folder).is_dir():
            return {}
        former = FileSecrets(FileSecrets.Options(path=folder))
        return {
            entry.name: self._sealed(cipher, new, entry.name, former.get(entry.name).reveal())
            for entry in former.entries()
        }


def _counted(secrets: Mapping[str, Sealed]) -> str:
    return f"{len(secrets)} {'secret' if len(secrets) == 1 else 'secrets'}"


def _entry(name: str, sealed: Sealed) -> SecretEntry:
    return SecretEntry(name=name, owner=sealed.owner, created_at=sealed.created_at, expires_at=sealed.expires_at)
