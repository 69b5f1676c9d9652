"""Hand-written gradients and fused loops, each below its plain twin in the same file."""
