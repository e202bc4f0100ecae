"""Who may do how much: the budget of memory, and later tokens and rates."""
