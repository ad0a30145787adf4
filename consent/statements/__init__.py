"""What a person reads aloud, in which language, and which challenge it answers."""
