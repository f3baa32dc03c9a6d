"""Gas of every call of the arena, beside its ceiling and its peers."""
