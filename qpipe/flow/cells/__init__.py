"""The cells of a run: their jobs, profiles, evidence and verdicts."""
