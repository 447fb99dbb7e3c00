"""Intervals and tests, as pure functions: no evidence, no files, no clock."""
