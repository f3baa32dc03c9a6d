"""Proof of useful work for biomedical image segmentation, as an Ethereum dApp."""

__version__ = "0.1.0"
