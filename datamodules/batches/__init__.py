"""What a model reads: batches, masks, and what the rows of a batch may see."""
