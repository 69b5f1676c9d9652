"""Moved to :mod:`ifmmin.nn.imagination`."""

from datamodules.deprecation import moved

__getattr__ = moved(__name__, "ifmmin.nn.imagination")
