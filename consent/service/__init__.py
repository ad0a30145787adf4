"""The office as a process of its own: what may be asked of it over its socket, by whom, and who asks."""
