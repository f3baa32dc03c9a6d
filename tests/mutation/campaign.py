"""From mutants to fates: compile a few dozen at once, play one by one, compare survivors."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from .compiler import Bytecode, Compiler
from .forge import KILLERS, BrokenBuild, Forge, Killer
from .mutants import Kind, Mutant, mutants_of
from .results import Fate, Result, Results
from .schemata import Schemata, schemata
from .syntax import Program, Source

MUTANTS_PER_PROGRAM: Final = 60


class Campaign:
    """All mutants of some sources, and what becomes of them under the tests as they were copied.

    Survivors are compared with the original, but for those that are ``explained`` by name.
    """

    def __init__(
        self,
        folder: Path,
        compiler: Compiler,
        forge: Forge,
        killers: Sequence[Killer] = KILLERS,
        explained: Collection[str] = (),
    ) -> None:
        self._compiler = compiler
        self._forge = forge
        self._killers = killers
        self._explained = explained
        self.results = Results(folder / "results.jsonl", forge.tree)
        self._original: Bytecode | None = None

    def mutants(self, paths: Sequence[str]) -> list[Mutant]:
        """Every mutant of these sources."""
        program = Program(self._compiler.syntax())
        found: list[Mutant] = []
        for path in paths:
            found += mutants_of(Source(path, self._content(path)), program)
        return found

    def run(self, mutants: Sequence[Mutant]) -> Iterator[Result]:
        """Decide mutants, source after source; unnoticed ones are compared at the end."""
        results = {mutant: self.results.known(mutant) for mutant in mutants}
        fresh = [mutant for mutant, result in results.items() if result is None]
        if fresh:
            self._forge.build()
            self._check_original()
        for result in self._play_all(fresh):
            if result.fate is not Fate.UNNOTICED:
                yield result
        for mutant in mutants:
            known = self.results.known(mutant)
            if known is not None and known.fate is Fate.UNNOTICED:
                fate = Fate.SAME if self._is_same(mutant) else Fate.SURVIVED
                yield self.results.add(mutant, fate, seconds=known.seconds)

    def _play_all(self, mutants: Sequence[Mutant]) -> Iterator[Result]:
        for path, group in groupby(mutants, key=lambda mutant: mutant.path):
            members = list(group)
            together = [mutant for mutant in members if mutant.site.kind is not Kind.ALONE]
            for batch in _batches(together, MUTANTS_PER_PROGRAM):
                yield from self._together(path, batch)
            for mutant in members:
                if mutant.site.kind is Kind.ALONE:
                    yield from self._together(path, [mutant])

    def _check_original(self) -> None:
        """The tests must pass on the arena as it is; else every mutant would seem killed."""
        original = self._compiler.bytecode({})
        if original.errors:
            raise BrokenBuild("\n".join(original.errors))
        self._forge.deploy(original.creation)
        for killer in self._killers:
            if failed := self._forge.play(killer, 0):
                raise BrokenBuild(f"{failed} fails on the arena without any mistake")

    def _together(self, path: str, batch: list[Mutant]) -> Iterator[Result]:
        """Compile alternatives beside each other, without those whom an error belongs to."""
        while batch:
            program = schemata(self._content(path), batch)
            output = self._compiler.bytecode({path: program.source})
            if not output.errors:
                yield from self._play(program, output)
                return
            if len(batch) == 1:
                yield from self._apart(path, batch)
                return
            blamed = {one.name for one in map(program.blamed, output.starts) if one is not None}
            if not blamed:
                yield from self._apart(path, batch)
                return
            for mutant in batch:
                if mutant.name in blamed:
                    yield from self._apart(path, [mutant])
            batch = [mutant for mutant in batch if mutant.name not in blamed]

    def _apart(self, path: str, batch: list[Mutant]) -> Iterator[Result]:
        """A fault that is nobody's: halves; of one alone its own plain source decides."""
        if len(batch) > 1:
            middle = len(batch) // 2
            yield from self._together(path, batch[:middle])
            yield from self._together(path, batch[middle:])
            return
        (mutant,) = batch
        output = self._compiler.bytecode({path: mutant.source(self._content(path))})
        if output.errors:
            yield self.results.add(mutant, Fate.STILLBORN, output.errors[0].splitlines()[0])
        else:
            yield from self._play(Schemata(path, "", (mutant,), ()), output)

    def _play(self, program: Schemata, output: Bytecode) -> Iterator[Result]:
        self._forge.deploy(output.creation)
        if len(program.mutants) > 1 and self._forge.play(self._killers[0], 0):
            # Choosing costs gas, of which some test may allow no more.
            yield from self._apart(program.path, list(program.mutants))
            return
        for number, mutant in enumerate(program.mutants, 1):
            began = time.monotonic()
            failed = next(
                filter(None, (self._forge.play(killer, number) for killer in self._killers)), ""
            )
            fate = Fate.KILLED if failed else Fate.UNNOTICED
            yield self.results.add(mutant, fate, failed, time.monotonic() - began)

    def _content(self, path: str) -> bytes:
        return (self._forge.tree / path).read_bytes()

    def _is_same(self, mutant: Mutant) -> bool:
        """Whether the whole optimiser makes the original's very bytes of it."""
        if mutant.name in self._explained:
            return False
        if self._original is None:
            self._original = self._compiler.bytecode({}, optimised=True)
        source = mutant.source(self._content(mutant.path))
        return self._compiler.bytecode({mutant.path: source}, optimised=True) == self._original


def _batches(mutants: list[Mutant], size: int) -> Iterator[list[Mutant]]:
    for start in range(0, len(mutants), size):
        yield mutants[start : start + size]
