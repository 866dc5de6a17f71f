"""Learning rates as a pure function of the step."""

import math
from collections.abc import Iterator


def cosine_rates(
    eta_max: float, eta_min: float, period: float, multiplier: float, batches_per_epoch: int
) -> Iterator[float]:
    """Learning rates batch by batch: a cosine from eta_max to eta_min over `period` epochs, then a warm restart.

    Every restart multiplies the period. Both ends of a cycle are visited, so a cycle of n batches has n + 1 rates; the
    published scheduler does the same.
    """
    while True:
        length = max(1, round(period * batches_per_epoch))
        for i in range(length + 1):
            yield eta_min + 0.5 * (eta_max - eta_min) * (1 + math.cos(math.pi * i / length))
        period *= multiplier
