"""What a load keeps so that the next one need not read again what did not change."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version

from platform_core.errors import StorageError
from platform_core.lake.row_hash import HASH_VERSION
from platform_core.operations.masking import Masking
from platform_core.plugins.interfaces import Secret
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import IngestionSpec

_FORM = 1
_PURPOSE = b"edp/known-rows"
_WITHOUT_EFFECT = {
    "delete_floor",
    "description",
    "detect_changes",
    "expectations",
    "isolated",
    "max_delete_ratio",
    "owners",
    "parallel",
    "paused",
    "priority",
    "retries",
    "split_by",
    "tags",
    "timeout",
}
"""What a declaration says beside what its rows become."""


@dataclass(frozen=True, kw_only=True)
class KnownRows:
    """The state of a source, and under what terms bronze got its rows.

    Args:
        terms: stand for all but the source's rows that decides what bronze holds of them.
        read_all_at: when all rows were last read, UTC.
        state: what the source gave.
    """

    terms: str
    read_all_at: dt.datetime
    state: bytes = field(repr=False)

    def packed(self) -> bytes:
        """The form in which it is kept beside the table."""
        content = {
            "form": _FORM,
            "terms": self.terms,
            "read_all_at": self.read_all_at.isoformat(),
            "state": base64.b64encode(self.state).decode(),
        }
        return json.dumps(content, sort_keys=True).encode()

    @classmethod
    def unpacked(cls, content: bytes, *, of: str) -> KnownRows | None:
        """What :meth:`packed` made; None where another release made it.

        Raises:
            StorageError: it is damaged.
        """
        try:
            found = json.loads(content)
            if found["form"] != _FORM:
                return None
            return cls(
                terms=str(found["terms"]),
                read_all_at=dt.datetime.fromisoformat(found["read_all_at"]),
                state=base64.b64decode(found["state"], validate=True),
            )
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise StorageError(
                f"{of}: what the source remembers is damaged\n  remove the newest file below its source state; the "
                "next load then reads everything"
            ) from None

    def serves(self, spec: IngestionSpec, *, terms: str, now: dt.datetime) -> bool:
        """Whether rows that have not changed since may be left as bronze has them."""
        every = spec.detect_changes.read_all_every if spec.detect_changes else dt.timedelta(0)
        return self.terms == terms and self.read_all_at <= now < self.read_all_at + every


def terms_of(spec: IngestionSpec, connection: ConnectionSpec, masking: Masking) -> str:
    """What stands for a declaration, the masking key in use, and this release; it tells nothing of the key."""
    said = spec.model_dump_json(exclude=_WITHOUT_EFFECT)
    keys = sorted({_mark_of(mask.key) for mask in masking.masks.values() if mask.key is not None})
    text = "\n".join([release(), HASH_VERSION, said, connection.fingerprint(), *keys])
    return hashlib.sha256(text.encode()).hexdigest()


def _mark_of(key: Secret) -> str:
    return hmac.digest(key.reveal(), _PURPOSE, "sha256").hex()


@cache
def release() -> str:
    """This release of the platform: another one may see the same rows otherwise."""
    return version("edp-platform-core")
