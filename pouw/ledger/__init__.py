"""The rules of the arena as pure functions over its events."""
