"""A run and MLflow: reached, logged, promoted, synced later, verified."""
