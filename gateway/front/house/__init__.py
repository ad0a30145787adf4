"""How the house is: what it counts, watches and keeps."""
