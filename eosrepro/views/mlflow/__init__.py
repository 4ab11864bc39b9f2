"""Runs in MLflow; the only importers of mlflow."""
