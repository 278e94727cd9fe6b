"""Finds cycles in a graph of any depth, without recursion."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def cycles(edges: Mapping[Node, Iterable[Node]]) -> list[list[Node]]:
    """One shortest cycle of every group of nodes that wait for each other.

    Args:
        edges: for each node the nodes that it waits for; nodes that are no key wait for nothing.

    Returns:
        Each cycle in order, without repeating its first node, which is the least of the cycle.
    """
    graph = {node: tuple(dict.fromkeys(found for found in waits if found in edges)) for node, waits in edges.items()}
    return [_shortest_cycle(group, graph) for group in _groups(graph) if len(group) > 1 or group[0] in graph[group[0]]]


def _groups(graph: Mapping[Node, tuple[Node, ...]]) -> list[list[Node]]:
    """Strongly connected components, by Tarjan's algorithm with an explicit stack."""
    order: dict[Node, int] = {}
    low: dict[Node, int] = {}
    open_nodes: list[Node] = []
    position: dict[Node, int] = {}
    groups: list[list[Node]] = []
    for root in graph:
        if root in order:
            continue
        work = [(root, iter(graph[root]))]
        order[root] = low[root] = len(order)
        position[root] = len(open_nodes)
        open_nodes.append(root)
        while work:
            node, rest = work[-1]
            step = next((found for found in rest if found not in order or found in position), None)
            if step is None:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == order[node]:
                    groups.append(open_nodes[position[node] :])
                    for closed in groups[-1]:
                        del position[closed]
                    del open_nodes[-len(groups[-1]) :]
            elif step in order:
                low[node] = min(low[node], order[step])
            else:
                order[step] = low[step] = len(order)
                position[step] = len(open_nodes)
                open_nodes.append(step)
                work.append((step, iter(graph[step])))
    return groups


def _shortest_cycle(group: list[Node], graph: Mapping[Node, tuple[Node, ...]]) -> list[Node]:
    """A shortest way from the least node of a group back to itself."""
    start = min(group, key=str)
    members = set(group)
    before: dict[Node, Node] = {}
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        for found in graph[node]:
            if found == start:
                way = [node]
                while way[-1] != start:
                    way.append(before[way[-1]])
                return way[::-1]
            if found in members and found not in before:
                before[found] = node
                waiting.append(found)
    raise AssertionError("a strongly connected group has a cycle through each of its nodes")
