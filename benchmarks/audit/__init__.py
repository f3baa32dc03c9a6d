"""A long history read and audited, beside the same on web3.py's own path."""
