"""Engines: one file each, holding a class `Engine`."""
