"""Monte-Carlo simulations of an arena: double spending, load, selection (paper, section 4.6)."""
