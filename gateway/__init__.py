"""The gateway: telephones on one side, an engine on the other, consent and mark between."""
