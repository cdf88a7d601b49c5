"""Tests of the page over all runs, and of the list."""
