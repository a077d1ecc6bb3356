"""Strongly connected components, after Tarjan (1972), without recursion: a graph may be deeper than Python's stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def components(targets: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The components of the graph in which node ``n`` has edges to ``targets[n]``."""
    order: dict[int, int] = {}
    lowest: list[int] = [0] * len(targets)
    stack: list[int] = []
    on_stack = bytearray(len(targets))
    for root in range(len(targets)):
        if root in order:
            continue
        path: list[tuple[int, Iterator[int]]] = [(root, iter(targets[root]))]
        while path:
            node, rest = path[-1]
            if node not in order:
                order[node] = lowest[node] = len(order)
                stack.append(node)
                on_stack[node] = True
            following = next((t for t in rest if t not in order or on_stack[t]), None)
            if following is None:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[node])
                if lowest[node] == order[node]:
                    yield _popped(stack, on_stack, node)
            elif following not in order:
                path.append((following, iter(targets[following])))
            else:
                lowest[node] = min(lowest[node], order[following])


def _popped(stack: list[int], on_stack: bytearray, node: int) -> list[int]:
    component: list[int] = []
    while not component or component[-1] != node:
        component.append(stack.pop())
        on_stack[component[-1]] = False
    return component
