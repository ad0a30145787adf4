"""What recordings are checked for before a voice is taken."""
