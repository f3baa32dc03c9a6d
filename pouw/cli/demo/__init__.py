"""``pouw demo``: the whole protocol on one machine, as separate processes that share a chain."""
