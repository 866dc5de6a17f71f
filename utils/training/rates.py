"""Learning rates as a pure function of the step."""

import itertools
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


def onecycle_rates(peak: float, lowest: float, steps: int) -> Iterator[float]:
    """Learning rates of one cycle (Smith and Topin, 2018): a cosine up from a 25th of the peak, then one down.

    Args:
        lowest: rate of the last step, and of any further ones.
        steps: length of the cycle in batches, a quarter of them before the peak.
    """
    up = max(1, round(steps / 4))
    down = max(1, steps - 1 - up)
    for i in itertools.count():
        start, end, share = (peak / 25, peak, i / up) if i < up else (peak, lowest, min(1.0, (i - up) / down))
        yield end + 0.5 * (start - end) * (1 + math.cos(math.pi * share))
