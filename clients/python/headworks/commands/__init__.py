"""The commands that the client brings: `headworks stream` and `headworks load`."""
