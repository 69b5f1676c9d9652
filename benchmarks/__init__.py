"""Programs that measure and compare: they use everything else, and nothing uses them."""
