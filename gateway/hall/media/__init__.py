"""A call's sound, 20 ms at a time: rates, echo, noise, keys that are tones, turns."""
