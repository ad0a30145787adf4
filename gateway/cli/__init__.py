"""The command line: each command's module, gathered by `main`."""
