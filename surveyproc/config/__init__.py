"""Configuration: compose ``conf/``, and check it with all errors at once."""
