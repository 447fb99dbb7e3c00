"""From the Q/DQ graph to the operators that onnxruntime's CPU kernels are written for.

onnxruntime fuses Q/DQ pairs into integer kernels when it loads a graph. What is done here is what it does not do: the
engine holds the result, so that every session on it has the same operators.
"""
