"""What starts the gateway and keeps it running: supervisor, preflight, the embedded Redis."""
