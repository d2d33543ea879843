"""How fast Connect is, beside a plain relay chain that goes the same way: `python -m benchmarks`."""
