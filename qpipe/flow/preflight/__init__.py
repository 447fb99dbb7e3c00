"""Before work: what can be found out, tried and foretold without running a cell."""
