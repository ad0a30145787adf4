"""Lines: small processes that move sound between telephones or browsers and a hall."""
