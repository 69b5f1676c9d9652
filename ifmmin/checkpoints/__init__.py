"""Reading checkpoints: ours and the released ones of the published code. Nothing in them is executed."""
