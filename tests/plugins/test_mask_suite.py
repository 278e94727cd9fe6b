"""The suite of masks, run by the built-in ones, and shown to find what breaks its promises."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from platform_core.masks.full import FullMask
from platform_core.masks.keyed_hash import KeyedHashMask
from platform_core.masks.partial import PartialMask
from platform_core.plugins.interfaces import Mask, Secret
from platform_core.plugins.testing import MaskOf, MaskSuite


class TestFull(MaskSuite):
    @pytest.fixture
    def mask_of(self) -> MaskOf:
        return lambda: FullMask(FullMask.Options(), key=None)


class TestPartial(MaskSuite):
    @pytest.fixture
    def mask_of(self) -> MaskOf:
        return lambda: PartialMask(PartialMask.Options(keep_first=1, keep_last=2), key=None)


class TestPartialEmail(MaskSuite):
    @pytest.fixture
    def mask_of(self) -> MaskOf:
        return lambda: PartialMask(PartialMask.Options(keep_first=1, email=True), key=None)


class TestHash(MaskSuite):
    @pytest.fixture(params=["email", "phone", "identifier", "text"])
    def mask_of(self, request: pytest.FixtureRequest) -> MaskOf:
        key = Secret("crm/masking_key", bytes(range(32)))
        return lambda: KeyedHashMask(KeyedHashMask.Options(domain=request.param), key=key)


class Identity(Mask):
    """Masks nothing, and makes null of an empty text."""

    def output_type(self, type_: pa.DataType) -> pa.DataType:
        return type_

    def apply(self, values: pa.Array) -> pa.Array:
        if not pa.types.is_string(values.type):
            return values
        return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def test_the_suite_finds_a_mask_that_shows_values() -> None:
    with pytest.raises(AssertionError):
        MaskSuite().test_no_long_text_shows(lambda: Identity(None, key=None))


def test_the_suite_finds_a_mask_that_makes_nulls() -> None:
    with pytest.raises(AssertionError):
        MaskSuite().test_null_stays_null_and_nothing_else_becomes_it(lambda: Identity(None, key=None), pa.string())
