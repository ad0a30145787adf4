"""The SIP edge: one proxy in front of all SIP lines; a module is one noun of RFC 3261."""
