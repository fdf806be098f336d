"""The demo: ten cameras of a football match against a server of their own, every frame accounted for."""
