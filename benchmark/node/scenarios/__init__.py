"""Scenarios: one file each, holding a class `Scenario`."""
