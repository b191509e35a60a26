"""Training steps and loops of each model, one process, without Ray."""
