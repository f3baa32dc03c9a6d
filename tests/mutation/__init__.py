"""Mutation testing of the contracts: does a test fail when a line is wrong?

Every mutant is the arena with one small mistake: a relation off by one, a condition forgotten, a
write left out, two arguments exchanged. A resident compiler turns it into bytecode, and forge plays
the tests of ``tests/forge`` on that bytecode until one of them fails. A mutant that no test notices
survives; ``survivors.toml`` says of each why it does, and the run fails where it is wrong.

``PYTHONPATH=tests python -m mutation --help``
"""
