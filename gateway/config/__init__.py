"""Settings, paths and logs: what every process reads first."""
