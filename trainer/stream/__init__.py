"""Decide which patches come when, and hand them over in batches."""
