"""The stages of dvc.yaml, a file each, and what they share."""
