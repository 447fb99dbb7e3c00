"""Weights that are stored in fewer bits and computed in float."""
