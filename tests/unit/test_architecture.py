"""`docs/architecture.md` shows the rooms and arrows that the contract names and the code has."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURE = re.search(r"```mermaid\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
MIDDLEWARE = "jq_middleware"
Arrow = tuple[str, str]


def drawn_rooms() -> list[str]:
    """The rooms of the picture, in their order."""
    assert PICTURE is not None
    return re.findall(r'^ +(\w+)\["\1: ', PICTURE[1], re.MULTILINE)


def drawn_arrows() -> list[Arrow]:
    """The arrows of the picture."""
    assert PICTURE is not None
    return re.findall(r"^ +(\w+) --> (\w+)$", PICTURE[1], re.MULTILINE)


def layers() -> list[set[str]]:
    """The layers of the contract, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [rooms] = [found for found in contracts if found["type"] == "layers" and found["containers"] == ["jq_actors"]]
    assert rooms["exhaustive"]
    return [set(layer.split(" | ")) for layer in rooms["layers"]]


def room_of(module: str) -> str:
    """The room of a module; empty for the package itself."""
    root, _, rest = module.partition(".")
    return root if root == MIDDLEWARE else rest.partition(".")[0]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """From which other rooms each room imports."""
    graph = grimp.build_graph("jq_actors", MIDDLEWARE, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            importer, room = room_of(module), room_of(imported)
            if importer and room and importer != room:
                found.setdefault(importer, set()).add(room)
    return found


def reachable(imports: Mapping[str, set[str]], rooms: set[str]) -> set[str]:
    """All that is imported from ``rooms``, directly or not."""
    found: set[str] = set()
    waiting = [room for start in rooms for room in imports.get(start, ())]
    while waiting:
        room = waiting.pop()
        if room not in found:
            found.add(room)
            waiting.extend(imports.get(room, ()))
    return found


def needed_arrows(imports: Mapping[str, set[str]]) -> Iterator[Arrow]:
    """The imports between rooms, without those that a longer way implies."""
    for room, imported in imports.items():
        for other in imported:
            if other not in reachable(imports, imported - {other}):
                yield room, other


def test_the_picture_has_the_rooms_of_the_contract_from_the_top() -> None:
    rooms = [room for room in drawn_rooms() if room != MIDDLEWARE]
    at = {room: number for number, layer in enumerate(layers()) for room in layer}
    assert set(rooms) == set(at)
    assert [at[room] for room in rooms] == sorted(at[room] for room in rooms)


def test_the_picture_has_the_arrows_of_the_code(imports: Mapping[str, set[str]]) -> None:
    assert sorted(drawn_arrows()) == sorted(needed_arrows(imports))


def test_each_arrow_of_the_picture_points_down() -> None:
    at = {room: number for number, layer in enumerate(layers()) for room in layer}
    assert all(at[room] < at[other] for room, other in drawn_arrows() if room != MIDDLEWARE)
