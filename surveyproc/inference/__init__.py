"""The engine: a batch of cutouts in, one Arrow table per product out; it knows nothing of Ray."""
