"""Who may speak as whom: consent, its proof, its limits and its end."""
