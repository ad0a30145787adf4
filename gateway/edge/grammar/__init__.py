"""How SIP and SDP are written, and read."""
