"""What is changed in the float graph so that quantizing costs less."""
