"""The conductor: plan → execute → gate → log → promote."""
