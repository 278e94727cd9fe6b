"""The suite of masks, run by the built-in ones, and shown to find what breaks its promises."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from platform_core.masks.canonical import Domain
from platform_core.masks.full import FullMask
from platform_core.masks.keyed_hash import KeyedHashMask
from platform_core.masks.null import NullMask
from platform_core.masks.partial import PartialMask
from platform_core.masks.truncate import TruncateMask
from platform_core.masks.year import YearMask
from platform_core.plugins.interfaces import Mask, Secret
from platform_core.plugins.testing import MaskOf, MaskSuite

KEY = Secret("crm/masking_key", b"0cac73f2e99bc4b52b0f2a0b0cf8d3c17b3f59ad9a2c7d20ce4dcb9b7ac4f5e1")


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
    @pytest.fixture(params=Domain)
    def mask_of(self, request: pytest.FixtureRequest) -> MaskOf:
        return lambda: KeyedHashMask(KeyedHashMask.Options(domain=request.param), key=KEY)


class TestHashWithPolicies(MaskSuite):
    @pytest.fixture
    def mask_of(self) -> MaskOf:
        options = KeyedHashMask.Options(domain="phone", country="NL", no_value=["unknown"], blank_to_null=True)
        return lambda: KeyedHashMask(options, key=KEY)


class TestNull(MaskSuite):
    @pytest.fixture
    def mask_of(self) -> MaskOf:
        return lambda: NullMask(NullMask.Options(), key=None)


class TestYear(MaskSuite):
    @pytest.fixture
    def mask_of(self) -> MaskOf:
        return lambda: YearMask(YearMask.Options(), key=None)


class TestTruncate(MaskSuite):
    @pytest.fixture(params=[{"keep": 4}, {"keep": 2, "keep_short": True}, {"to": "month"}, {"to": "week"}])
    def mask_of(self, request: pytest.FixtureRequest) -> MaskOf:
        return lambda: TruncateMask(TruncateMask.Options(**request.param), key=None)


class Identity(Mask):
    """Masks nothing, and makes null of an empty text without saying so."""

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
