"""The mask that leaves nothing."""

from __future__ import annotations

import pyarrow as pa

from platform_core.plugins.interfaces import Disclosure, Mask


class NullMask(Mask):
    """Puts null in the place of every value, of whatever type; the column keeps its type, and even whether there was a
    value does not show.
    """

    keeps_apart = False
    discloses = Disclosure.NOTHING
    makes_null = True

    def output_type(self, type_: pa.DataType) -> pa.DataType:
        return type_

    def apply(self, values: pa.Array) -> pa.Array:
        return pa.nulls(len(values), values.type)
