"""Moved to :mod:`datamodules.batches.batch` and :mod:`datamodules.conditions`."""

from datamodules.deprecation import moved

__getattr__ = moved(__name__, "datamodules.batches.batch", "datamodules.conditions")
