"""The test phone: a telephone on somebody else's SIP stack, pjsua2, which calls us."""
