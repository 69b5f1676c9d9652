"""Moved to :mod:`ifmmin.nn.encoders` and :mod:`ifmmin.nn.heads` and :mod:`ifmmin.nn.initialisation`."""

from datamodules.deprecation import moved

__getattr__ = moved(__name__, "ifmmin.nn.encoders", "ifmmin.nn.heads", "ifmmin.nn.initialisation")
