"""The teams classifier: a few layers and one matrix, from a player's crop to the scores of the shirts.

`train_teams.py` fits it and `export.py` writes it out. It looks at the whole crop before it decides, so
it can tell the figure in the middle from who stands before it. Shapes are (batch, channels, height, width).
"""

from __future__ import annotations

from dataset import CROP_HEIGHT, CROP_WIDTH
from network import Table, conv, residual
from shirts import SHIRT_CLASSES
from torch import Tensor, nn

LAYERS = (
    conv("stem", "images", 24, kernel=3, stride=2),  # 32 x 16
    *residual("stem", "stem", 24, 16),
    conv("mid", "stem_sum", 40, kernel=3, stride=2),  # 16 x 8
    *residual("mid", "mid", 40, 20),
    conv("far", "mid_sum", 56, kernel=3, stride=2),  # 8 x 4
    conv("end", "far", 40, kernel=3, stride=2),  # 4 x 2
)
FEATURES = LAYERS[-1].channels * (CROP_HEIGHT // 16) * (CROP_WIDTH // 16)


class Classifier(nn.Module):
    """The network in PyTorch: (B, 3, 64, 32) in 0..1 -> logits (B, classes)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(LAYERS)
        self.dropout = nn.Dropout(0.2)
        self.matrix = nn.Linear(FEATURES, len(SHIRT_CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.matrix(self.dropout(self.table(images).flatten(1)))
