"""Names what a small batch holds, and what it was compared with, so that a load which meets both again knows it.

Most loads of most small tables read the very rows that the load before them read. To know it from one digest of the
batch as it lies in memory costs a tenth of hashing its rows and looking into bronze. Equal marks mean equal rows in the
same order, compared under the same terms with the same version of the table; different ones mean nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

_BYTES = 32


def content_of(rows: pa.RecordBatch | None, schema: pa.Schema, *, key: bytes = b"") -> str:
    """A digest (hex) of all rows of a load, in their order; None: there are none.

    Args:
        schema: what decides besides the rows.
        key: makes the digest one that nobody computes without it, for rows that are not masked; at most 64 bytes.
    """
    digest = hashlib.blake2b(schema.serialize(), digest_size=_BYTES, key=key)
    if rows is not None and rows.num_rows:
        digest.update(rows.schema.serialize())
        digest.update(rows.serialize())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a load leaves for the next one, which may meet the same rows and the same table.

    Args:
        mark: stands for rows that this version of the table is known to hold.
        version: Delta version of the table.
        batch_id: the newest batch in it: a table that was made anew counts its versions from 0, but never its batches.
        columns: the source's own columns of the table; None: the next load has to look at it.
    """

    mark: str
    version: int
    batch_id: int
    columns: pa.Schema | None = None

    @classmethod
    def of(cls, content: str, *, terms: str, version: int, batch_id: int, columns: pa.Schema | None) -> Self:
        """What stands for rows.

        Args:
            content: of the rows.
            terms: all that decides what rows do to the table.
        """
        whole = "\n".join((terms, str(version), str(batch_id), content))
        mark = hashlib.blake2b(whole.encode(), digest_size=_BYTES).hexdigest()
        return cls(mark=mark, version=version, batch_id=batch_id, columns=columns)

    def packed(self) -> str:
        """One text, for the load log."""
        columns = None if self.columns is None else zlib.compress(self.columns.serialize().to_pybytes())
        packed = None if columns is None else base64.b64encode(columns).decode()
        return json.dumps([self.mark, self.version, self.batch_id, packed])

    @classmethod
    def unpacked(cls, text: str | None) -> Self | None:
        """What :meth:`packed` made; None where another release made something else."""
        try:
            mark, version, batch_id, packed = json.loads(text or "null")
            columns = None if packed is None else pa.ipc.read_schema(pa.py_buffer(zlib.decompress(_bytes(packed))))
        except (ValueError, TypeError, zlib.error, pa.ArrowException):
            return None
        return cls(mark=mark, version=version, batch_id=batch_id, columns=columns)


def _bytes(packed: str) -> bytes:
    return base64.b64decode(packed, validate=True)
