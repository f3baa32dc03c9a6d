"""The chain: the only part of the package that imports web3."""
