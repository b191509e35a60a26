"""Torch modules and the bundles that carry their weights."""
