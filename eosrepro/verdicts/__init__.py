"""From recorded runs to numbers, and from numbers to verdicts."""
