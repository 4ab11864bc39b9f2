"""params.yaml as frozen objects."""
