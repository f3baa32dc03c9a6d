"""The networks of the closed registry as checked arguments: no torch, nothing is built here."""
