"""All that is recorded as one HTML page."""
