"""Lanes, decoders and the way of finished tickets back to the event loop."""
