"""Moved to :mod:`ifmmin.nn.losses`."""

from datamodules.deprecation import moved

__getattr__ = moved(__name__, "ifmmin.nn.losses")
