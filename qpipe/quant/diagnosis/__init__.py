"""Where a loss comes from: the rows, the ranges, the layers, the choice of nodes."""
