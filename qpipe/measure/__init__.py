"""Evaluation, timing, memory, and the reference runner. All in process: who guards a child is `execute`."""
