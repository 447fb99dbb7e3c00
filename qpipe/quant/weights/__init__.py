"""Weights in fewer bits: the numbers alone, without a graph."""
