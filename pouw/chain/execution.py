"""Messages executed without a signature on a state: ``eth_call`` and ``eth_estimateGas``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eth.abc import ComputationAPI, SignedTransactionAPI, StateAPI
from eth.exceptions import PyEVMError
from eth.vm.forks.cancun import CancunVM
from eth.vm.spoof import SpoofTransaction
from eth_typing import Address as RawAddress
from eth_utils import ValidationError

from pouw.chain.evm import Refused


@dataclass(frozen=True, slots=True)
class Call:
    """A message to execute without a signature; amounts in wei."""

    sender: bytes
    to: bytes
    data: bytes
    value: int
    gas: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call returned; ``error`` is None where it succeeded, ``reverted`` tells REVERT."""

    output: bytes
    gas_used: int
    error: str | None
    reverted: bool


def execute(state: StateAPI, call: Call) -> Outcome:
    """Run ``call`` as a transaction at no gas price; the caller undoes the state."""
    return _outcome(*_execute(state, call, call.gas))


def estimate(state: StateAPI, call: Call) -> tuple[int, Outcome]:
    """The gas that ``call`` needs, at most 2 % above it, and its outcome with all its gas."""
    transaction, computation = _execute(state, call, call.gas)
    outcome = _outcome(transaction, computation)
    if outcome.error is not None:
        return 0, outcome
    low = outcome.gas_used - 1
    peak = outcome.gas_used + int(computation.get_gas_refund())
    guess = min(call.gas, peak * 64 // 63 + 2300)
    high = call.gas
    while high - low > max(1, high // 50):
        if _outcome(*_execute(state, call, guess)).error is None:
            high = guess
        else:
            low = guess
        guess = (low + high) // 2
    return high, outcome


def _execute(state: StateAPI, call: Call, gas: int) -> tuple[SignedTransactionAPI, ComputationAPI]:
    snapshot = state.snapshot()
    sender = RawAddress(call.sender)
    unsigned = CancunVM.create_unsigned_transaction(
        nonce=state.get_nonce(sender),
        gas_price=0,
        gas=gas,
        to=RawAddress(call.to),
        value=call.value,
        data=call.data,
    )
    transaction: Any = SpoofTransaction(unsigned, from_=sender)
    try:
        return transaction, state.apply_transaction(transaction)
    except (ValidationError, PyEVMError) as error:
        raise Refused(_call_refusal(transaction, state, error)) from error
    finally:
        state.revert(snapshot)


def _call_refusal(transaction: Any, state: StateAPI, error: Exception) -> str:
    if state.get_balance(transaction.sender) < transaction.value:
        return "insufficient funds for transfer"
    if transaction.gas < transaction.intrinsic_gas:
        return "intrinsic gas too low"
    return f"cannot be executed: {error}"


def _outcome(transaction: SignedTransactionAPI, computation: ComputationAPI) -> Outcome:
    used = CancunVM.finalize_gas_used(transaction, computation)
    if computation.is_success:
        return Outcome(computation.output, used, None, reverted=False)
    reverted = type(computation.error).__name__ == "Revert"
    words = "execution reverted" if reverted else f"{type(computation.error).__name__}"
    return Outcome(computation.output if reverted else b"", used, words, reverted=reverted)
