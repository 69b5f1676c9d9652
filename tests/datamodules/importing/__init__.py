"""Imports of packs and folders."""
