from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.specs.base import is_name
from platform_core.specs.person import LONGEST, PEOPLE, Person, person_of
from platform_core.specs.table import TableRef

PEOPLE_NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}(_[a-z0-9]{1,4}){0,2}", fullmatch=True)
WORKSTREAMS = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)


def test_a_plain_account_is_the_persons_name() -> None:
    assert person_of("anna", stated=False) == Person("anna")
    assert person_of("anna_b", stated=False) == Person("anna_b")


def test_an_account_that_cannot_stand_in_names_is_told_apart_by_a_digest() -> None:
    found = [person_of(account, stated=False) for account in ("Anna.Smith", "anna smith", "anna__smith", "anna_smith")]
    assert len({str(each) for each in found}) == 4
    assert [str(each).startswith("anna_smith") for each in found] == [True] * 4
    assert str(found[3]) == "anna_smith"


def test_long_accounts_with_the_same_beginning_are_two_people() -> None:
    one, other = (person_of("a" * 40 + end, stated=True) for end in "xy")
    assert one != other
    assert len(str(one)) <= LONGEST


@pytest.mark.parametrize("account", [None, "", "  ", "...", "root", "ubuntu", "gitlab-runner", "Administrator"])
def test_an_account_that_many_machines_have_is_nobody(account: str | None) -> None:
    assert person_of(account, stated=False) is None


def test_a_name_that_somebody_states_is_meant() -> None:
    assert person_of("root", stated=True) == Person("root")
    assert person_of(" ", stated=True) is None


@given(st.text(max_size=60))
def test_any_account_is_nobody_or_has_a_name_that_is_an_identifier(account: str) -> None:
    found = person_of(account, stated=True)
    assert found is None or (is_name(found.name) and len(found.name) <= LONGEST and "__" not in found.name)


@given(PEOPLE_NAMES, WORKSTREAMS, PEOPLE_NAMES, WORKSTREAMS)
def test_two_people_never_share_the_name_of_a_schema(one: str, mine: str, other: str, theirs: str) -> None:
    same = Person(one).scoped(mine) == Person(other).scoped(theirs)
    assert same == ((one, mine) == (other, theirs))


@given(PEOPLE_NAMES, WORKSTREAMS)
def test_nothing_of_a_persons_can_be_a_workstream_of_everybody(name: str, workstream: str) -> None:
    assert not is_name(Person(name).scoped(workstream))
    assert not is_name(PEOPLE)


def test_a_scoped_table_is_told_from_the_plain_one_and_back() -> None:
    ref = TableRef("mobility", "bronze", "rides")
    assert str(Person("anna").table(ref)) == "_anna__mobility.bronze.rides"
    assert Person("anna").plain(Person("anna").table(ref)) == ref


@pytest.mark.parametrize("name", ["", "Anna", "an__na", "anna_", "_anna", "1anna", "a" * 25, "../x"])
def test_a_name_that_would_not_be_safe_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in names"):
        Person(name)
