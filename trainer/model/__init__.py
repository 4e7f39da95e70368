"""Build, save, load and export networks."""
