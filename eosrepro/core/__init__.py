"""The numerics: torch and numpy alone."""
