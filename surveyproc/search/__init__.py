"""Similarity search on stored embeddings."""
