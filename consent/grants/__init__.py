"""What halls and engines see of consent: grants, and the news that a voice was withdrawn."""
