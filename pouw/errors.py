"""Every error that reaches a caller of this package.

::

    PouwError                     what is wrong, and what to do about it
    ├── ConfigError               a setting is missing or makes no sense
    ├── DocumentError             a TaskSpec, Manifest or Evidence that is not one
    ├── DataError                 images, labels or folders that cannot be used
    ├── ContentError              something about content-addressed bytes
    │   ├── ContentNotFound       no place that was asked has the block
    │   ├── ContentMismatch       bytes that do not hash to their CID
    │   │   └── ContentMisdeclared  of another size than was declared
    │   └── ContentTooLarge       more bytes than were declared
    ├── SealError                 a sealed file that does not open
    │   └── WrongKey              the key is not the one that was committed to
    ├── ModelError                a model that must not be loaded or cannot be scored
    │   └── ModelTooLarge         a model that passes the caps of its task
    ├── JournalError              the journal cannot be read or written
    ├── ChainError                something about the chain
    │   ├── ChainUnavailable      the endpoint does not answer, or answers nonsense
    │   ├── Reverted              the contract refused a call, with its custom error
    │   └── TransactionLost       sent, and not found again in time
    ├── LedgerError               a history that breaks the rules of the arena
    └── ProcessError              a child process (training, scoring) failed
        └── MachineFailed         for want of memory or disk, or its machine is gone
"""

from __future__ import annotations

from typing import Any


class PouwError(Exception):
    """What is wrong (``str(error)``) and, where one can say so, what to do (``error.hint``)."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(PouwError):
    """A setting is missing or makes no sense."""


class DocumentError(PouwError):
    """A document that is not canonical, too large, or does not follow its schema."""


class DataError(PouwError):
    """Images, labels or folders that cannot be used."""


class ContentError(PouwError):
    """Something about content-addressed bytes; ``cid`` is the block or file concerned."""

    def __init__(self, message: str, *, cid: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.cid = cid


class ContentNotFound(ContentError):
    """No place that was asked has the block."""


class ContentMismatch(ContentError):
    """Bytes that do not hash to their CID, or a block that is not what the profile allows."""


class ContentMisdeclared(ContentMismatch):
    """Content of another size than was declared: the fault of whoever declared it."""


class ContentTooLarge(ContentError):
    """More bytes than were declared or are allowed."""


class SealError(PouwError):
    """A sealed file that does not open: not one, truncated, reordered or altered."""


class WrongKey(SealError):
    """The key is not the one that was committed to on chain."""


class ModelError(PouwError):
    """A model that must not be loaded or cannot be scored."""


class ModelTooLarge(ModelError):
    """A model that passes the caps of its task: bytes, parameters or activations."""


class JournalError(PouwError):
    """The journal cannot be read or written."""


class ChainError(PouwError):
    """Something about the chain."""


class ChainUnavailable(ChainError):
    """The endpoint does not answer, or its answer is not one."""


class Reverted(ChainError):
    """The contract refused a call: the custom error's ``name`` and ``arguments``."""

    def __init__(
        self, name: str, arguments: dict[str, Any] | None = None, *, hint: str | None = None
    ) -> None:
        shown = ", ".join(f"{key}={value}" for key, value in (arguments or {}).items())
        super().__init__(f"the contract refused the call: {name}({shown})", hint=hint)
        self.name = name
        self.arguments = dict(arguments or {})


class TransactionLost(ChainError):
    """A transaction that was sent and could not be found again in time."""


class LedgerError(PouwError):
    """A history that breaks the rules of the arena."""


class ProcessError(PouwError):
    """A child process (training, scoring) failed."""


class MachineFailed(ProcessError):
    """It failed for want of memory or disk, or its machine is gone: no fault of its input."""
