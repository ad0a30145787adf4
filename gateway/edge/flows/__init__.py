"""Ways by which SIP messages come and go."""
