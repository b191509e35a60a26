"""Metrics of what models say against what people said."""
