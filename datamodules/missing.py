"""Moved to :mod:`datamodules.batches.visible` and :mod:`datamodules.batches.masks`."""

from datamodules.deprecation import moved

__getattr__ = moved(__name__, "datamodules.batches.visible", "datamodules.batches.masks")
