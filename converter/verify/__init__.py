"""Hold a finished store against itself, and against the archive that it was made from."""
