"""The small mistakes: what each expression could have been by a slip of the pen.

Relations are replaced by the three that no other replacement subsumes (Kaminski, Ammann and Offutt,
"Improving logic-based testing", 2013), in the manner of the Solidity mutators Gambit and
universalmutator. Names are replaced by their neighbours of the same type: `T3` by `T4`, `above`
by `below`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from .syntax import Node, Program, Source, children, span, type_of

NUMBER: Final = re.compile(r"u?int(\d+$|_const)")
RELATIONS: Final = {
    "<": ("<=", "!=", "false"),
    "<=": ("<", "==", "true"),
    ">": (">=", "!=", "false"),
    ">=": (">", "==", "true"),
    "==": ("<=", ">=", "false"),
    "!=": ("<", ">", "true"),
}
OPPOSITES: Final = {"==": "!=", "!=": "=="}
CALCULATIONS: Final = {
    "+": ("-", "*"),
    "-": ("+", "*"),
    "*": ("/", "+"),
    "/": ("*", "-"),
    "%": ("/", "*"),
    "&": ("|", "^"),
    "|": ("&", "^"),
    "<<": (">>",),
    ">>": ("<<",),
}
ASSIGNMENTS: Final = {"+=": ("-=", "="), "-=": ("+=", "="), "|=": ("&=", "="), "&=": ("|=", "=")}


@dataclass(frozen=True)
class Edit:
    """Bytes ``start`` to ``stop`` of a source replaced by ``text``."""

    start: int
    stop: int
    text: str
    operator: str


def edits(node: Node, source: Source, program: Program, *, used: bool = True) -> Iterator[Edit]:
    """Every mistake in an expression and below it; ``used``: whether its value matters."""
    kind = node["nodeType"]
    if kind == "BinaryOperation":
        yield from _binary(node, source)
    elif kind == "UnaryOperation":
        yield from _unary(node, source, used)
    elif kind == "Assignment":
        yield from _assignment(node, source)
    elif kind == "Conditional":
        yield _replaced(node, source.of(node["trueExpression"]), "condition")
        yield _replaced(node, source.of(node["falseExpression"]), "condition")
    elif kind == "FunctionCall":
        yield from _call(node, source)
    elif kind == "Literal":
        yield from _literal(node, source)
    elif kind in ("Identifier", "MemberAccess"):
        yield from _name(node, source, program)
    for child in children(node):
        if child["nodeType"] not in ("ElementaryTypeName", "UserDefinedTypeName"):
            yield from edits(child, source, program)


def values(node: Node, source: Source) -> Iterator[Edit]:
    """A value that is stored, handed over or returned, made zero or its opposite."""
    kind = type_of(node)
    if node["nodeType"] == "TupleExpression" and kind.startswith("tuple("):
        for component in node["components"]:
            if component is not None:
                yield from values(component, source)
        return
    if node["nodeType"] == "Literal":
        return
    zero = None
    if kind == "bool":
        zero = f"!({source.of(node)})"
    elif NUMBER.match(kind):
        zero = "0"
    elif re.fullmatch(r"bytes\d+|address", kind):
        zero = f"{kind}(0)"
    elif kind.startswith("enum "):
        zero = f"{kind.removeprefix('enum ')}(0)"
    if zero is not None and zero != source.of(node):
        yield _replaced(node, zero, "value")


def _replaced(node: Node, text: str, operator: str) -> Edit:
    return Edit(*span(node), text, operator)


def _binary(node: Node, source: Source) -> Iterator[Edit]:
    left, right, sign = node["leftExpression"], node["rightExpression"], node["operator"]
    gap = (span(left)[1], span(right)[0])
    between = source.text(*gap)
    if sign in ("&&", "||"):
        yield Edit(*gap, between.replace(sign, "||" if sign == "&&" else "&&"), "logic")
        yield _replaced(node, source.of(left), "logic")
        yield _replaced(node, source.of(right), "logic")
        return
    others = CALCULATIONS.get(sign, ())
    name = "calculation"
    if sign in RELATIONS:
        name = "relation"
        numbers = NUMBER.match(type_of(left)) or NUMBER.match(type_of(right))
        others = RELATIONS[sign] if numbers or sign not in OPPOSITES else (OPPOSITES[sign],)
        if sign in OPPOSITES and source.of(right) == "0":
            others = ("true", "false")  # nothing unsigned is below zero
    for other in others:
        if other in ("true", "false"):
            yield _replaced(node, other, name)
        else:
            yield Edit(*gap, between.replace(sign, other), name)


def _unary(node: Node, source: Source, used: bool) -> Iterator[Edit]:
    operand = source.of(node["subExpression"])
    sign = node["operator"]
    if sign == "!":
        yield _replaced(node, operand, "logic")
    elif sign in ("++", "--"):
        yield _replaced(node, ("--" if sign == "++" else "++") + operand, "calculation")
        if used and node["prefix"]:
            yield _replaced(node, operand + sign, "calculation")


def _assignment(node: Node, source: Source) -> Iterator[Edit]:
    left, right, sign = node["leftHandSide"], node["rightHandSide"], node["operator"]
    gap = (span(left)[1], span(right)[0])
    for other in ASSIGNMENTS.get(sign, ()):
        yield Edit(*gap, source.text(*gap).replace(sign, other), "assignment")
    yield from values(right, source)
    if left["nodeType"] == "TupleExpression":
        for component in left["components"]:
            if component is not None:
                yield _replaced(component, "", "assignment")


def _call(node: Node, source: Source) -> Iterator[Edit]:
    if node["kind"] == "typeConversion":
        return
    arguments = node["arguments"]
    for argument in arguments:
        yield from values(argument, source)
    for one, other in pairwise(arguments):
        left, right = source.of(one), source.of(other)
        if type_of(one) == type_of(other) and left != right:
            between = source.text(span(one)[1], span(other)[0])
            yield Edit(span(one)[0], span(other)[1], right + between + left, "exchange")


def _literal(node: Node, source: Source) -> Iterator[Edit]:
    if node["kind"] == "number":
        number = int(node["value"].replace("_", ""), 0)
        for other in {number + 1, max(number - 1, 0)} - {number}:
            yield _replaced(node, str(other), "literal")
    elif node["kind"] == "bool":
        yield _replaced(node, "false" if node["value"] == "true" else "true", "literal")
    elif node["kind"] == "string":
        yield _replaced(node, source.of(node)[:-1] + 'x"', "literal")


def _name(node: Node, source: Source, program: Program) -> Iterator[Edit]:
    if node.get("memberName") == "sender" and source.of(node) == "msg.sender":
        yield _replaced(node, "tx.origin", "name")
    family = program.neighbours(node.get("referencedDeclaration"))
    ids = [member["id"] for member in family]
    if len(ids) < 2:
        return
    place = ids.index(node["referencedDeclaration"])
    field = "memberLocation" if node["nodeType"] == "MemberAccess" else "src"
    names = {family[(place + 1) % len(ids)]["name"], family[place - 1]["name"]}
    for name in sorted(names):
        yield Edit(*span(node, field), name, "name")
