"""SIP as the one who was called."""
