"""The built-in linear-Gaussian corpora: their generator with the exact posterior, files and datamodule."""
