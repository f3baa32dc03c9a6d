"""Publisher, miner, oracle and node: pure decisions plus one idempotent ``run_once()`` each."""
