"""Reading the compiler's syntax trees: spans, texts, declarations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Node = dict[str, Any]


def span(node: Node, field: str = "src") -> tuple[int, int]:
    """Byte offsets of a node's first byte and of the one after its last."""
    start, length, _ = (int(part) for part in node[field].split(":"))
    return start, start + length


def children(node: Node) -> Iterator[Node]:
    """Direct children, in no particular order."""
    for value in node.values():
        for child in value if isinstance(value, list) else (value,):
            if isinstance(child, dict) and "nodeType" in child:
                yield child


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def type_of(node: Node) -> str:
    """The type's name without its place: ``struct IPoUW.Task`` of a pointer into storage."""
    name = node.get("typeDescriptions", {}).get("typeString") or ""
    for place in (" storage", " memory", " calldata"):
        name = name.split(place)[0]
    return str(name)


@dataclass(frozen=True)
class Source:
    """One source file as bytes: the compiler counts in bytes."""

    path: str
    content: bytes

    def text(self, start: int, stop: int) -> str:
        return self.content[start:stop].decode()

    def of(self, node: Node) -> str:
        return self.text(*span(node))

    def line(self, offset: int) -> int:
        return self.content.count(b"\n", 0, offset) + 1


class Program:
    """All declarations by their id, and what each could be mistaken for."""

    def __init__(self, trees: dict[str, Node]) -> None:
        self.trees = trees
        self._families: dict[int, list[Node]] = {}
        for path, tree in trees.items():
            for node in walk(tree):
                if node["nodeType"] in ("StructDefinition", "EnumDefinition"):
                    self._add(node["members"])
                elif node["nodeType"] == "FunctionDefinition":
                    self._add(
                        [
                            v
                            for v in walk(node)
                            if v["nodeType"] == "VariableDeclaration" and v["name"]
                        ]
                    )
                elif node["nodeType"] == "ContractDefinition" and path.startswith("contracts/"):
                    self._add(
                        [
                            v
                            for v in node["nodes"]
                            if v.get("mutability") in ("constant", "immutable")
                        ]
                    )

    def _add(self, members: list[Node]) -> None:
        for member in members:
            kind = type_of(member)
            self._families[member["id"]] = [one for one in members if type_of(one) == kind]

    def neighbours(self, declaration: int | None) -> list[Node]:
        """Members of the same struct or enum, constants of the same contract, variables of the same
        function, always of the same type and in their order, the declaration itself included."""
        return self._families.get(declaration or 0, [])
