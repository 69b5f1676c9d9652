"""What trained models imagine, and what is inside them: ``python -m benchmarks.imagination PATH...``."""
