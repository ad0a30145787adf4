"""The halls: which has time, and what each may have."""
