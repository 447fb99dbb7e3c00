"""MLflow, and nothing else imports it: runs, flavor, registry, ledger, `models:/` sources. mlflow comes late."""
