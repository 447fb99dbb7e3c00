"""Finished runs: remembered, judged again, compared, explained, reported."""
