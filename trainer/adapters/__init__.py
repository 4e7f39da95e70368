"""Hand a stream to a framework."""
