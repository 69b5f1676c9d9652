"""The published training loops, written anew in plain PyTorch, to be measured against."""
