"""The mask that shows nothing but whether there is a value."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.plugins.interfaces import Disclosure, Mask

MASKED = "***"


class FullMask(Mask):
    """Puts ``***`` in the place of every value, of whatever type, the empty text included."""

    keeps_apart = False
    discloses = Disclosure.NOTHING

    def output_type(self, type_: pa.DataType) -> pa.DataType:
        return pa.string()

    def apply(self, values: pa.Array) -> pa.Array:
        nothing = pa.scalar(None, pa.string())
        return pc.if_else(pc.is_null(values), nothing, pa.scalar(MASKED))
