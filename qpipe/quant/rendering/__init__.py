"""A plan written into a graph: Q/DQ pairs, dynamic quantization, casts."""
