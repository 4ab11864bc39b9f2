"""Speed as ratios against what published code does: `python -m benchmarks`."""
