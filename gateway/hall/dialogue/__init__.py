"""What a call says and hears: its engine, its memory, its notes."""
