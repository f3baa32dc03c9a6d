from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz_models import fuzz, honest, mutant, outcome

FILES = 3_000


def test_loader__mutated_files__end_in_a_model_or_the_typed_refusal() -> None:
    """``make fuzz-models`` reads 100,000."""
    tally = fuzz(0, FILES)
    assert tally.failures == []
    assert set(tally.outcomes) == {"ModelError", "loaded"}
    assert sum(tally.outcomes.values()) == FILES
    # Mutations must neither all be harmless nor all be refused at the first byte.
    assert tally.outcomes["loaded"] > FILES // 100
    assert tally.outcomes["ModelError"] > FILES // 2


def test_mutant__same_number__same_bytes(tmp_path: Path) -> None:
    origin = honest()
    assert mutant(17, origin) == mutant(17, origin) != mutant(18, origin)
    (tmp_path / "m").write_bytes(origin)
    assert outcome(tmp_path / "m") == "loaded"
