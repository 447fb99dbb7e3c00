"""Child processes: how they are born, watched and ended."""
