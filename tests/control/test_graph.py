"""Cycles are found in any graph, of any depth."""

from __future__ import annotations

import graphlib

from hypothesis import given
from hypothesis import strategies as st

from platform_core.control.graph import cycles

graphs = st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 14), max_size=4), max_size=13)


def has_cycle(graph: dict[int, list[int]]) -> bool:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError:
        return True
    return False


@given(graphs)
def test_a_cycle_is_found_exactly_where_there_is_one(graph: dict[int, list[int]]) -> None:
    assert bool(cycles(graph)) == has_cycle(graph)


@given(graphs)
def test_each_cycle_that_is_told_is_one(graph: dict[int, list[int]]) -> None:
    for cycle in cycles(graph):
        assert len(set(cycle)) == len(cycle)
        for node, following in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert following in graph[node]


@given(graphs)
def test_taking_the_told_cycles_away_again_and_again_leaves_none(graph: dict[int, list[int]]) -> None:
    graph = {node: list(dict.fromkeys(waits)) for node, waits in graph.items()}
    for _ in range(200):
        found = cycles(graph)
        if not found:
            break
        for cycle in found:
            graph[cycle[-1]].remove(cycle[0])
    assert not has_cycle(graph)


def test_a_hundred_thousand_nodes_in_a_row_and_in_a_circle() -> None:
    row = {number: [number + 1] for number in range(100_000)}
    assert cycles(row) == []
    circle = row | {100_000: [0]}
    assert [len(cycle) for cycle in cycles(circle)] == [100_001]


def test_two_separate_cycles_are_both_told() -> None:
    assert sorted(cycles({1: [2], 2: [1], 3: [4], 4: [3, 1], 5: [5]})) == [[1, 2], [3, 4], [5]]
