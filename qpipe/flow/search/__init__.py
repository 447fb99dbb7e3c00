"""A search: candidates on the search rows, and the one finalist that meets the gate rows."""
