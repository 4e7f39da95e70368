"""Predict patches, and measure the predictions."""
