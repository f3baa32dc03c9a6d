"""Measurements, each beside a peer or a baseline in the same run."""
