"""Train models, one or several to compare."""
