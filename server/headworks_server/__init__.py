"""The Headworks server. `app` builds it; every other module is a part that `app` wires."""

__version__ = "0.1.0"
