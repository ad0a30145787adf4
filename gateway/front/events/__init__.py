"""What calls tell of their lives: numbered, kept, and told to whoever listens (docs/events.md)."""
