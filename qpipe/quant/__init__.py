"""The quantizer: statistics from one streamed pass, a plan by scheme, its rendering as Q/DQ, and corrections."""
