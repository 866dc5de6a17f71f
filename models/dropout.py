"""Dropout masks that depend on nothing but their place in a run.

They come from the counter-based generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
2011): a block of 128 random bits is a function of a counter and a key. The key is the seed of a training pass, and the
counter holds (block, batch number, fusion layer, place of the candidate in its step). Block (b // 8) S + s serves unit
s of S in eight successive samples b of a batch, with 16 bits each.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # added to the key after every round
SAMPLES = 8  # that share a block
WORD = 0xFFFFFFFF


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Compute four random 32-bit words from the four of a counter and two of a key, all held in int64."""
    a, b, c, d = counter
    first, second = key
    for _ in range(ROUNDS):
        p, q = a * MULTIPLIERS[0], c * MULTIPLIERS[1]  # modulo 2^64: their bits are those of the unsigned products
        a, b, c, d = (q >> 32 & WORD) ^ b ^ first, q & WORD, (p >> 32 & WORD) ^ d ^ second, p & WORD
        first, second = first + KEY_STEPS[0] & WORD, second + KEY_STEPS[1] & WORD
    return [a, b, c, d]


def threshold(dropout: float) -> int:
    """Return the 16-bit number from which on a unit is kept: the probability is a multiple of 2^-16."""
    return min(round(dropout * 2**16), 2**16 - 1)


def masks(dropout: float, seed: int, batches: Tensor, layers: Tensor, places: Tensor, units: int, size: int) -> Tensor:
    """Draw dropout masks of 0 and 1 / (1 - dropout) in float32, shape (T, P, units, size).

    Args:
        seed: of the training pass, up to 64 bits.
        batches: batch numbers (T,).
        layers: fusion layer of each of P pairs of candidate and layer, (P,).
        places: place of the candidate in its step, (P,).
        units: units S of a fusion layer.
        size: samples B of a batch.
    """
    groups = -(-size // SAMPLES)
    blocks = torch.arange(groups, device=places.device).unsqueeze(1) * units + torch.arange(units, device=places.device)
    counter = (blocks, batches.view(-1, 1, 1, 1), layers.view(-1, 1, 1), places.view(-1, 1, 1))
    words = philox(torch.broadcast_tensors(*counter), (seed & WORD, seed >> 32 & WORD))  # each (T, P, groups, S)
    pieces = torch.stack([word >> shift & 0xFFFF for word in words for shift in (0, 16)], dim=-1)  # (..., S, 8)
    kept = pieces.transpose(2, 3).flatten(3)[..., :size] >= threshold(dropout)  # (T, P, S, B)
    return kept / (1 - dropout)
