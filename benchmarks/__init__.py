"""Programs that measure and compare: they use everything else, and nothing uses them."""

from ifmmin.cli import starting

# Before any of them imports PyTorch, so that they measure what the command line does.
starting.large_pages()
