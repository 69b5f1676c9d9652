"""How long training, prediction and a start take, against the published code and as a corpus grows."""

from ifmmin.cli import starting

# Before any program imports PyTorch, so that it measures what the command line does.
starting.large_pages()
