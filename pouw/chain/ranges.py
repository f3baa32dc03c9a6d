"""Reading an arena's logs range by range, as wide as the endpoint lets one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Event as Signal
from typing import Final

from pouw.chain.logs import LogAnswer, RawLog, event_of, raw_logs
from pouw.chain.rpc import Endpoint, EndpointRefused, EndpointSlow
from pouw.errors import ChainUnavailable
from pouw.events import Event
from pouw.types import Address

_WIDEST: Final = 50_000
_FIRST: Final = 100
_BATCH: Final = 8
_FEW_LOGS: Final = 500
_MANY_LOGS: Final = 2_000
_WIDEN_AFTER: Final = 8
_PLACES: Final = 1 << 32  # far more logs than a block can hold

Range = tuple[int, int]
Answer = list[LogAnswer] | EndpointRefused | EndpointSlow | None
Reading = Callable[[], Sequence[Answer]]


def read_events(endpoint: Endpoint, arena: Address, from_block: int, to_block: int) -> list[Event]:
    """The arena's events of blocks ``from_block`` to ``to_block``, both included, in order.

    ChainUnavailable where the endpoint answers with anything else than this arena's logs.
    """
    wrong = endpoint.malformed("eth_getLogs")
    return [
        event_of(log, wrong)
        for _, logs in LogReader(endpoint, arena).read(from_block, to_block)
        for log in logs
    ]


class LogReader:
    """Reads logs in batches of ranges; remembers how wide a range the endpoint takes.

    A range that is refused, not answered in time, or full of logs, is halved for the next ones;
    after a row of answers they are twice as wide again. So memory is bounded however long the
    history. Several ranges go in one batch where logs are few and the endpoint takes batches. The
    endpoint makes the next answer while one is decoded.
    """

    def __init__(self, endpoint: Endpoint, arena: Address, width: int = _FIRST) -> None:
        self._endpoint, self._arena = endpoint, arena
        self.width = min(max(1, width), _WIDEST)
        self._batch, self._batches = 1, True
        self._answered = 0

    def read(self, first: int, last: int) -> Iterator[tuple[int, list[RawLog]]]:
        """Logs in order, range by range, each with its last block, ``last`` in the end.

        ChainUnavailable where the logs of a single block cannot be had.
        """
        if first > last:
            return
        with ThreadPoolExecutor(max_workers=1) as beside:
            ranges = self._ranges(first, last)
            asked = self._ask(beside, ranges)
            while ranges:
                taken = self._taken(ranges, self._answers(ranges, asked))
                if taken:
                    first = taken[-1][0][1] + 1
                ranges = self._ranges(first, last)
                if ranges:
                    asked = self._ask(beside, ranges)
                for wanted, answer in taken:
                    yield wanted[1], self._checked(wanted, answer)

    def _ranges(self, first: int, last: int) -> list[Range]:
        """What to ask for next; nothing where ``first`` is past ``last``."""
        starts = range(first, last + 1, self.width)[: self._batch]
        return [(start, min(start + self.width - 1, last)) for start in starts]

    def _taken(
        self, ranges: list[Range], answers: Sequence[Answer]
    ) -> list[tuple[Range, list[LogAnswer]]]:
        """The logs up to the first refusal; the width for the next ranges follows from them."""
        taken: list[tuple[Range, list[LogAnswer]]] = []
        # Fewer answers than ranges where a batch was refused.
        for wanted, answer in zip(ranges, answers, strict=False):
            if answer is None:
                raise self._endpoint.malformed("eth_getLogs")
            if isinstance(answer, ChainUnavailable):
                if taken and wanted[0] == wanted[1]:
                    break  # asked for again, so that what came before it is kept
                self._narrow(wanted, answer)
                break
            taken.append((wanted, answer))
            self._adapt(len(answer))
        return taken

    def _ask(self, beside: Executor, ranges: list[Range]) -> Future[Reading]:
        """Send the request before anything else is done, and have its answer waited for."""
        sent = Signal()
        asked = beside.submit(self._send, ranges, sent.set)
        asked.add_done_callback(lambda _: sent.set())  # a request that could not be sent
        # Whoever decodes gives the interpreter away every 5 ms, and sending takes it several times.
        sent.wait()
        return asked

    def _send(self, ranges: list[Range], on_sent: Callable[[], object] | None = None) -> Reading:
        queries = [
            [{"address": self._arena, "fromBlock": hex(first), "toBlock": hex(last)}]
            for first, last in ranges
        ]
        return self._endpoint.send_many("eth_getLogs", queries, list[LogAnswer], on_sent)

    def _answers(self, ranges: list[Range], asked: Future[Reading]) -> Sequence[Answer]:
        """Answers for the first of ``ranges``; a refusal is one, and so is silence."""
        try:
            return asked.result()()
        except (EndpointRefused, EndpointSlow) as refused:
            if len(ranges) == 1:
                return [refused]
        self._batch, self._batches = 1, False
        try:
            return self._send(ranges[:1])()
        except (EndpointRefused, EndpointSlow) as refused:
            return [refused]

    def _checked(self, wanted: Range, answer: list[LogAnswer]) -> list[RawLog]:
        wrong = self._endpoint.malformed("eth_getLogs")
        logs = raw_logs(answer, self._arena, wrong)
        before = (wanted[0], -1)
        for log in logs:
            place = (log.block_number, log.log_index)
            if place <= before or log.log_index >= _PLACES:
                raise wrong
            before = place
        if before[0] > wanted[1]:
            raise wrong
        return logs

    def _narrow(self, wanted: Range, refused: ChainUnavailable) -> None:
        first, last = wanted
        if first == last:
            why = refused.message[:200] if isinstance(refused, EndpointRefused) else str(refused)
            raise ChainUnavailable(
                f"{self._endpoint.url} gives no events of block {first}: {why}",
                hint="where it keeps no blocks as old as that, set from_block to the arena's "
                "deployment, or use an endpoint with the whole history",
            ) from refused
        self.width, self._answered = (last - first + 1) // 2, 0

    def _adapt(self, logs: int) -> None:
        """Ask for more after little, for less after much."""
        self._batch = _BATCH if self._batches and logs <= _FEW_LOGS else 1
        if logs > _MANY_LOGS:
            self.width, self._answered = max(1, self.width // 2), 0
            return
        # Twice as wide must not be too much again.
        self._answered = self._answered + 1 if logs <= _MANY_LOGS // 2 else 0
        if self._answered >= _WIDEN_AFTER:
            self.width, self._answered = min(2 * self.width, _WIDEST), 0
