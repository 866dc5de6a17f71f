"""The surrogate: an LSTM that reads a configuration row by row and predicts its dev accuracy (MFAS, section 3.3).

Notation: a batch of B configurations, each of L rows; hidden size H.
"""

from torch import Tensor, nn


class Surrogate(nn.Module):
    """Embed rows, run an LSTM over them, and map its last state to an accuracy in (0, 1).

    Linear weights start uniform in [-0.1, 0.1], linear biases at 1.8.
    """

    def __init__(self, row_size: int = 3, hidden_size: int = 100) -> None:
        super().__init__()
        first = nn.Linear(row_size, hidden_size)
        self.embedding = nn.Sequential(first, nn.Sigmoid())
        self.lstm = nn.LSTM(hidden_size, hidden_size)
        self.hid2val = nn.Linear(hidden_size, 1)
        for linear in (first, self.hid2val):
            nn.init.uniform_(linear.weight, -0.1, 0.1)
            nn.init.constant_(linear.bias, 1.8)

    def forward(self, rows: Tensor) -> Tensor:
        """Predicted accuracies (B, 1) of configurations of equal length, rows (L, B, row_size)."""
        embedded = self.embedding(rows)  # (L, B, H)
        _, (state, _) = self.lstm(embedded)  # (1, B, H)
        return self.hid2val(state[0]).sigmoid()  # (B, 1)
