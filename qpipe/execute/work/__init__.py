"""What children do: one module per kind of work, and what it needs."""
