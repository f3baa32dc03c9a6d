"""Every mutant of a source: one mistake at one site."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .operators import Edit, edits, values
from .syntax import Node, Program, Source, span


class Kind(Enum):
    """How a site's alternatives can stand beside each other in one program."""

    STATEMENT = "statement"
    DECLARATION = "declaration"
    EXPRESSION = "expression"
    # Outside of functions' bodies: constants, arguments of base constructors.
    ALONE = "alone"


@dataclass(frozen=True)
class Site:
    """Bytes that a mutant replaces; sites never overlap. ``outer`` is the whole declaration."""

    start: int
    stop: int
    kind: Kind
    outer: tuple[int, int]
    function: str
    declares: str = ""
    assigns: str = ""
    cast: str = ""


@dataclass(frozen=True)
class Mutant:
    """A source with one mistake. ``name`` says which and stays when other lines move."""

    path: str
    line: int
    operator: str
    site: Site
    text: str
    name: str

    def source(self, content: bytes) -> str:
        """The whole source with the mistake."""
        return (
            content[: self.site.start] + self.text.encode() + content[self.site.stop :]
        ).decode()


def mutants_of(source: Source, program: Program) -> list[Mutant]:
    """All mutants in their order; each edit once, whichever operators propose it."""
    found: dict[str, Mutant] = {}
    for site, edit in sorted(
        _site_edits(source, program), key=lambda pair: (pair[1].start, pair[1].text)
    ):
        text = source.text(site.start, edit.start) + edit.text + source.text(edit.stop, site.stop)
        shown = source.text(*site.outer)
        changed = (
            source.text(site.outer[0], site.start) + text + source.text(site.stop, site.outer[1])
        )
        if changed == shown:
            continue
        name = f"{site.function}: {_flat(shown)} => {_flat(changed)}"
        nth = sum(other.name.split(" #")[0] == name for other in found.values())
        if any(m.site == site and m.text == text for m in found.values()):
            continue
        name += f" #{nth + 1}" if nth else ""
        found[name] = Mutant(source.path, source.line(edit.start), edit.operator, site, text, name)
    return list(found.values())


def _flat(text: str) -> str:
    return " ".join(text.split())


def _site_edits(source: Source, program: Program) -> Iterator[tuple[Site, Edit]]:
    for contract in program.trees[source.path]["nodes"]:
        if contract["nodeType"] != "ContractDefinition":
            continue
        for node in contract["nodes"]:
            if node["nodeType"] == "VariableDeclaration" and node.get("value"):
                site = _site(node, Kind.ALONE, node["name"])
                yield from ((site, edit) for edit in edits(node["value"], source, program))
            elif node["nodeType"] == "FunctionDefinition" and node.get("body"):
                yield from _Function(source, program, node).edits()


def _site(node: Node, kind: Kind, function: str, **more: Any) -> Site:
    return Site(*span(node), kind, span(node), function, **more)


class _Function:
    def __init__(self, source: Source, program: Program, node: Node) -> None:
        self._source = source
        self._program = program
        self._node = node
        self._name = node["name"] or node["kind"]

    def edits(self) -> Iterator[tuple[Site, Edit]]:
        for modifier in self._node["modifiers"]:
            for argument in modifier.get("arguments") or ():
                site = _site(modifier, Kind.ALONE, self._name)
                yield from ((site, edit) for edit in values(argument, self._source))
                yield from ((site, edit) for edit in edits(argument, self._source, self._program))
        yield from self._statement(self._node["body"])

    def _statement(self, node: Node) -> Iterator[tuple[Site, Edit]]:
        kind = node["nodeType"]
        if kind in ("Block", "UncheckedBlock"):
            for statement in node["statements"]:
                yield from self._statement(statement)
        elif kind in ("IfStatement", "WhileStatement"):
            yield from self._condition(node["condition"])
            for body in ("trueBody", "falseBody", "body"):
                if node.get(body):
                    yield from self._statement(node[body])
        elif kind == "ForStatement":
            yield from self._for(node)
        elif kind == "VariableDeclarationStatement":
            if node.get("initialValue"):
                yield from self._declaration(node)
        elif kind in ("ExpressionStatement", "EmitStatement", "RevertStatement", "Return"):
            yield from self._simple(node)
        else:
            raise NotImplementedError(f"{kind} in {self._source.path}")

    def _simple(self, node: Node) -> Iterator[tuple[Site, Edit]]:
        start, stop = span(node)
        stop += not self._source.text(start, stop).endswith(";")
        site = Site(start, stop, Kind.STATEMENT, (start, stop), self._name)
        if node["nodeType"] != "Return" or node.get("expression"):
            yield site, Edit(start, stop, "{}", "deletion")
        for field in ("expression", "eventCall", "errorCall"):
            if node.get(field):
                yield from self._all(
                    site, node[field], stored=node["nodeType"] == "Return", used=False
                )

    def _declaration(self, node: Node) -> Iterator[tuple[Site, Edit]]:
        names = [one["name"] if one else "" for one in node["declarations"]]
        declares = " ".join(f"{self._source.of(one)};" for one in node["declarations"] if one)
        assigns = names[0] if len(names) == 1 else f"({', '.join(names)})"
        start, stop = span(node)
        stop += not self._source.text(start, stop).endswith(";")
        value = span(node["initialValue"])
        site = Site(*value, Kind.DECLARATION, (start, stop), self._name, declares, assigns)
        yield from self._all(site, node["initialValue"], stored=True)

    def _condition(self, node: Node) -> Iterator[tuple[Site, Edit]]:
        site = _site(node, Kind.EXPRESSION, self._name)
        yield site, Edit(*span(node), "true", "condition")
        yield site, Edit(*span(node), "false", "condition")
        yield from self._all(site, node)

    def _for(self, node: Node) -> Iterator[tuple[Site, Edit]]:
        first = node.get("initializationExpression")
        if first and first.get("initialValue"):
            (declaration,) = first["declarations"]
            cast = self._source.of(declaration["typeName"])
            outer = span(first)
            site = Site(*span(first["initialValue"]), Kind.EXPRESSION, outer, self._name, cast=cast)
            yield from self._all(site, first["initialValue"], stored=True)
        if node.get("condition"):
            yield from self._condition(node["condition"])
        if node.get("loopExpression"):
            expression = node["loopExpression"]["expression"]
            yield from self._all(
                _site(expression, Kind.EXPRESSION, self._name), expression, used=False
            )
        yield from self._statement(node["body"])

    def _all(
        self, site: Site, node: Node, *, stored: bool = False, used: bool = True
    ) -> Iterator[tuple[Site, Edit]]:
        if stored:
            yield from ((site, edit) for edit in values(node, self._source))
        yield from ((site, edit) for edit in edits(node, self._source, self._program, used=used))
