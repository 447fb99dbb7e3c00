"""Templates of `qpipe new-target`: `$name`, `$module` and `$backend` are replaced, nothing else."""
