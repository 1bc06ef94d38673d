"""The command line: one module a group of commands; it composes nothing itself, `daemon` does."""
