"""Many mutants in one program: which of them runs, the block's ``prevrandao`` says.

Compiling the arena takes seconds, playing tests on it half of one. So all mutants of a few sites
stand beside each other as alternatives (Untch, Offutt and Harrold, "Mutation analysis using mutant
schemata", 1993), are compiled once, and forge's ``--block-prevrandao`` chooses. Number 0 is the
arena as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from .mutants import Kind, Mutant, Site

CHOSEN: Final = "block.prevrandao"


@dataclass(frozen=True)
class Schemata:
    """A source in which ``mutants[n - 1]`` runs where the choice is n, at ``spans[n - 1]``."""

    path: str
    source: str
    mutants: tuple[Mutant, ...]
    spans: tuple[tuple[int, int], ...]

    def blamed(self, start: int) -> Mutant | None:
        """The mutant to whose text an error at byte ``start`` belongs."""
        for mutant, (opens, closes) in zip(self.mutants, self.spans, strict=True):
            if opens <= start < closes:
                return mutant
        return None


def schemata(content: bytes, mutants: list[Mutant]) -> Schemata:
    """Mutants of one source in one program; one outside of functions stands for itself."""
    path = mutants[0].path
    if mutants[0].site.kind is Kind.ALONE:
        (mutant,) = mutants
        return Schemata(path, mutant.source(content), (mutant,), ())
    text = bytearray()
    spans: list[tuple[int, int]] = []
    done = 0
    ordered = sorted(mutants, key=lambda mutant: mutant.site.start)
    for site, group in groupby(ordered, key=lambda mutant: mutant.site):
        original = content[site.start : site.stop].decode()
        text += _viewing(content[done : site.outer[0]])
        for piece, owned in _alternatives(site, content, original, list(group), len(spans) + 1):
            if owned:
                spans.append((len(text), len(text) + len(piece.encode())))
            text += piece.encode()
        done = site.outer[1]
    text += _viewing(content[done:])
    return Schemata(path, text.decode(), tuple(ordered), tuple(spans))


def _viewing(code: bytes) -> bytes:
    """A pure function may not read the choice, one that only views may."""
    return re.sub(rb"\bpure\b(?=[\s\w()]*\{)", b"view", code)


def _alternatives(
    site: Site, content: bytes, original: str, mutants: list[Mutant], first: int
) -> list[tuple[str, bool]]:
    """Pieces of text, and whether each is a mutant's own."""
    pieces: list[tuple[str, bool]] = []
    if site.kind is Kind.EXPRESSION:
        pieces.append((content[site.outer[0] : site.start].decode() + "(", False))
        for number, mutant in enumerate(mutants, first):
            pieces += [
                (f"{CHOSEN} == {number} ? {site.cast}(", False),
                (mutant.text, True),
                (") : ", False),
            ]
        pieces.append(
            (f"{site.cast}({original}))" + content[site.stop : site.outer[1]].decode(), False)
        )
        return pieces
    opens, closes = ("", "") if site.kind is Kind.STATEMENT else (f"{site.assigns} = ", ";")
    pieces.append((f"{site.declares} {{ ", False))
    for number, mutant in enumerate(mutants, first):
        pieces += [
            (f"if ({CHOSEN} == {number}) {{ {opens}", False),
            (mutant.text, True),
            (f"{closes} }} else ", False),
        ]
    pieces.append((f"{{ {opens}{original}{closes} }} }}", False))
    return pieces
