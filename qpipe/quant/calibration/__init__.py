"""One streamed pass over the calibration rows: what is observed of every tensor, and how it is kept."""
