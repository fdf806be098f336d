"""The shirts of the renderer and the classes of the teams model.

`dataset.py`, `teams.py` and `evaluate.py` read it. It owns the names. A class is a colour, because kits
differ from match to match: within a match the colour of the shirt tells the team. Navy is blue: in one
light it is what blue is in another. `scene.py` lets no two teams meet whose shirts are that close.
"""

from __future__ import annotations

from scene import GOALKEEPER_SHIRT, REFEREE_SHIRT, TEAM_COLOURS

SHIRTS = (*TEAM_COLOURS, GOALKEEPER_SHIRT, REFEREE_SHIRT)
SAME = {"navy": "blue"}
SHIRT_CLASSES = tuple(shirt for shirt in SHIRTS if shirt not in SAME)


def shirt_class(shirt: str) -> str:
    """Return the class that a shirt of the renderer belongs to."""
    return SAME.get(shirt, shirt)
