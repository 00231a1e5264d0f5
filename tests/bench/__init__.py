"""The benchmarks: `make bench`. All stays on loopback, and every figure stands beside another of the same run."""
