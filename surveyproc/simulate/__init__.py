"""Simulated galaxies with known truth, for the demo and for tests."""
