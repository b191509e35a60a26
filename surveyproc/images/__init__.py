"""Pure pixel functions: decode, stretch, resize, views."""
