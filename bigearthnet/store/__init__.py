"""The format of a packed store, written by one side and read by the other."""
