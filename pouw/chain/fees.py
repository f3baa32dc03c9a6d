"""What a unit of gas may cost: the first offer, and how it is raised while blocks pass it over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

GWEI: Final = 10**9
# Nodes replace a transaction where fee and tip both grow: by 10 % (geth, Nethermind, Besu), once
# by 12.5 % (OpenEthereum), which is also how fast a base fee can rise from block to block.
_RAISE: Final = (9, 8)


@dataclass(frozen=True, slots=True)
class Fees:
    """Most wei for a unit of gas in all (EIP-1559), and of that for the block's producer."""

    most_wei: int
    tip_wei: int

    @classmethod
    def offer(cls, base_wei: int, tip_wei: int, limit_wei: int) -> Self:
        """Enough while the base fee does not double, and never more than the limit."""
        most_wei = min(2 * base_wei + tip_wei, limit_wei)
        return cls(most_wei, min(tip_wei, most_wei))

    def raised(self, offer: Fees, limit_wei: int) -> Fees | None:
        """What replaces a transaction of these fees: 12.5 % more, or ``offer`` where that is more.

        None where that would pass the limit.
        """
        least_wei = _more(self.most_wei)
        if least_wei > limit_wei:
            return None
        most_wei = min(max(least_wei, offer.most_wei), limit_wei)
        return Fees(most_wei, min(max(_more(self.tip_wei), offer.tip_wei), most_wei))


def _more(wei: int) -> int:
    times, over = _RAISE
    return max(wei + 1, -(-wei * times // over))
