"""Who may do what and how much: tokens, and the budget of memory."""
