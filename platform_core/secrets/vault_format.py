"""How the vault is written down: what is encrypted with what, and what each part is bound to."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
ABSENT = ""
"""Digest of the vault that is not there yet."""

_MAGIC = b"edp-vault\n"
_FORMAT = 1
_NONCE_BYTES = 12


class VaultFaultError(Exception):
    """A file of the vault cannot be used; the text says what is the matter with it."""


class WrongKeyError(VaultFaultError):
    """The vault was written with another key."""


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """One secret, its value encrypted.

    Args:
        generation: of the vault when the value was set.
    """

    generation: int
    created_at: dt.datetime
    owner: str | None
    expires_at: dt.datetime | None
    nonce: bytes = field(repr=False)
    value: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A vault that was opened; values in it are still encrypted.

    Args:
        vault: its id, hex.
        generation: grows by one with each change.
        digest: SHA-256 of the file, hex; empty for a vault that is not there yet.
    """

    vault: str
    generation: int
    secrets: Mapping[str, Sealed]
    digest: str


class Cipher:
    """Encrypts and decrypts a vault with one key: AES-256-GCM, under a key of its own for each purpose."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.key_id = hmac.new(key, b"edp-vault/key-id", hashlib.sha256).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Cipher({self.key_id})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("the key of a vault cannot be pickled")

    def pack(self, vault: str, generation: int, secrets: Mapping[str, Sealed]) -> bytes:
        """The vault's file: a header in clear, and the rest encrypted and bound to that header."""
        clear = json.dumps({name: _written(sealed) for name, sealed in sorted(secrets.items())}).encode()
        nonce = os.urandom(_NONCE_BYTES)
        header = {
            "format": _FORMAT,
            "vault": vault,
            "generation": generation,
            "key": self.key_id,
            "nonce": nonce.hex(),
            "bytes": len(clear) + 16,
        }
        head = _MAGIC + json.dumps(header).encode() + b"\n"
        return head + self._aead(vault, "contents").encrypt(nonce, clear, head)

    def unpack(self, data: bytes) -> Contents:
        """The contents of a vault's file.

        Raises:
            WrongKeyError: it was written with another key.
            VaultFaultError: it is no vault, was cut off, or altered.
        """
        head, header, body = _split(data)
        if header["key"] != self.key_id:
            raise WrongKeyError(f"was written with key {header['key']}, and the key given is {self.key_id}")
        if len(body) != header["bytes"]:
            raise VaultFaultError(
                f"is cut off or has grown: {len(body):,} bytes where {header['bytes']:,} were written"
            )
        clear = self._opened(header["vault"], "contents", bytes.fromhex(header["nonce"]), body, head)
        found = {name: _read(entry) for name, entry in json.loads(clear).items()}
        return Contents(
            vault=header["vault"],
            generation=header["generation"],
            secrets=found,
            digest=hashlib.sha256(data).hexdigest(),
        )

    def seal(
        self,
        vault: str,
        name: str,
        value: bytes,
        *,
        generation: int,
        owner: str | None,
        expires_at: dt.datetime | None,
    ) -> Sealed:
        """A value, encrypted and bound to the vault, its name and the generation."""
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(
            generation=generation,
            created_at=dt.datetime.now(dt.UTC),
            owner=owner,
            expires_at=expires_at,
            nonce=nonce,
            value=self._aead(vault, "value").encrypt(nonce, value, _bound(vault, name, generation)),
        )

    def open(self, vault: str, name: str, sealed: Sealed) -> bytes:
        """The value of a secret.

        Raises:
            VaultFaultError: it is not the value of that name and generation.
        """
        bound = _bound(vault, name, sealed.generation)
        return self._opened(vault, "value", sealed.nonce, sealed.value, bound)

    def witness(self, vault: str, accepted: Mapping[str, int]) -> bytes:
        """The file that tells which states of a vault are not old ones.

        Args:
            accepted: generation by digest of the vault's file.
        """
        told = json.dumps({"vault": vault, "accepted": dict(accepted)})
        return json.dumps({"told": told, "proof": self._proof(vault, told)}).encode() + b"\n"

    def accepted(self, data: bytes) -> tuple[str, dict[str, int]]:
        """The vault's id and the accepted states, from what :meth:`witness` wrote.

        Raises:
            VaultFaultError: it was not written with this key, or altered.
        """
        try:
            written = json.loads(data)
            told = json.loads(written["told"])
            vault, accepted = str(told["vault"]), {str(key): int(value) for key, value in told["accepted"].items()}
            proof = str(written["proof"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise VaultFaultError("is damaged") from None
        if not hmac.compare_digest(self._proof(vault, written["told"]), proof):
            raise VaultFaultError("was altered, or written with another key")
        return vault, accepted

    def _proof(self, vault: str, told: str) -> str:
        return hmac.new(self._derived(vault, "witness"), told.encode(), hashlib.sha256).hexdigest()

    def _opened(self, vault: str, purpose: str, nonce: bytes, data: bytes, bound: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._aead(vault, purpose).decrypt(nonce, data, bound)
        except (InvalidTag, ValueError):
            raise VaultFaultError("was altered or damaged: it does not decrypt") from None

    def _aead(self, vault: str, purpose: str) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._derived(vault, purpose))

    def _derived(self, vault: str, purpose: str) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = f"edp-vault/{_FORMAT}/{purpose}".encode()
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=vault.encode(), info=info).derive(self._key)


def new_vault_id() -> str:
    """An id for a new vault, so that nothing of another vault with the same key passes for its own."""
    return os.urandom(16).hex()


def _split(data: bytes) -> tuple[bytes, dict[str, Any], bytes]:
    if not data.startswith(_MAGIC):
        raise VaultFaultError("is no vault: its first line is another" if data else "is empty")
    line, end, body = data[len(_MAGIC) :].partition(b"\n")
    try:
        header = json.loads(line)
        known = header["format"]
        for name, kind in (("vault", str), ("generation", int), ("key", str), ("nonce", str), ("bytes", int)):
            if known == _FORMAT and not isinstance(header[name], kind):
                raise ValueError(name)
        bytes.fromhex(header["nonce"])
    except (ValueError, KeyError, TypeError):
        raise VaultFaultError("is cut off or damaged: its header cannot be read") from None
    if known != _FORMAT:
        raise VaultFaultError(f"has format {known!r:.20}, and this release knows format {_FORMAT}: use a newer release")
    return _MAGIC + line + end, header, body


def _bound(vault: str, name: str, generation: int) -> bytes:
    return json.dumps([vault, name, generation]).encode()


def _written(sealed: Sealed) -> dict[str, Any]:
    return {
        "generation": sealed.generation,
        "created_at": sealed.created_at.isoformat(),
        "owner": sealed.owner,
        "expires_at": None if sealed.expires_at is None else sealed.expires_at.isoformat(),
        "nonce": sealed.nonce.hex(),
        "value": sealed.value.hex(),
    }


def _read(entry: dict[str, Any]) -> Sealed:
    expires_at = entry["expires_at"]
    return Sealed(
        generation=entry["generation"],
        created_at=dt.datetime.fromisoformat(entry["created_at"]),
        owner=entry["owner"],
        expires_at=None if expires_at is None else dt.datetime.fromisoformat(expires_at),
        nonce=bytes.fromhex(entry["nonce"]),
        value=bytes.fromhex(entry["value"]),
    )
