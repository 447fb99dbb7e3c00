"""Jobs in guarded children: one process each, forked from a prepared interpreter, on this machine or another."""
