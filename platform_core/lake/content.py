"""Names what a small batch holds, and what it was compared with, so that a load which meets both again knows it.

Most loads of most small tables read the very rows that the load before them read. To know it from one digest of the
batch as it lies in memory costs a tenth of hashing its rows and looking into bronze. Equal marks mean equal rows in the
same order, compared under the same terms with the same version of the table; different ones mean nothing.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa

_BYTES = 32


def content_of(rows: pa.RecordBatch | None, schema: pa.Schema) -> str:
    """A digest (hex) of all rows of a load, in their order; None: there are none."""
    digest = hashlib.blake2b(schema.serialize(), digest_size=_BYTES)
    if rows is not None and rows.num_rows:
        digest.update(rows.serialize())
    return digest.hexdigest()


def mark_of(content: str, *, terms: str, version: int, batch: int) -> str:
    """What stands for rows that a version of a table is known to hold.

    Args:
        content: of the rows.
        terms: all that decides what rows do to the table.
        version: Delta version of the table.
        batch: the newest batch id in it: a table that was made anew counts its versions from 0, but never its batches.
    """
    whole = "\n".join((terms, str(version), str(batch), content))
    return hashlib.blake2b(whole.encode(), digest_size=_BYTES).hexdigest()
