"""The built-in linear-Gaussian corpus: its generator with the exact posterior, and its files."""
