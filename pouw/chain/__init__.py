"""The chain: requests, transactions, an arena's calls and logs, and the embedded EVM."""
