"""What a training is and what came of it, as files."""
