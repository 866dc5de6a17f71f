"""Render the templates of this package: each page is one HTML file that needs no network; every value is escaped."""

import functools
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.results.over_seeds import Spread, spread_of
from utils.results.statistics import format_lead, format_p, signed
from utils.search.space import format_configuration


def render(template: str, **content: object) -> str:
    """Render a template.

    Raises:
        jinja2.UndefinedError: the content lacks a value that the template needs.
    """
    return _templates().get_template(template).render(content)


@functools.cache
def _templates() -> Environment:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    page = Environment(autoescape=True, loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown = (known, typed, percent, points, number, duration, durations, percentages, format_lead, format_p)
    page.filters |= {f.__name__: f for f in shown}
    page.filters["configuration"] = format_configuration
    return page


def known(value: object) -> object:
    return "-" if value is None else value


def typed(value: object) -> object:
    """Show a setting as on the command line."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else known(value)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def points(difference: float) -> str:
    return signed(100 * difference)


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {round(seconds) % 60:02d} s"


def durations(values: Iterable[float | None]) -> str:
    """Mean and standard deviation of the durations that are known."""
    return spread_of_durations(spread_of(list(values)))


def percentages(values: Iterable[float | None]) -> str:
    """Mean and standard deviation of the shares that are known."""
    return spread_of_shares(spread_of(list(values)))


def spread_of_durations(value: Spread | None) -> str:
    if value is None:
        return "-"
    return duration(value.mean) + ("" if value.deviation is None else f" ± {duration(value.deviation)}")


def spread_of_shares(value: Spread | None) -> str:
    if value is None:
        return "-"
    deviation = "" if value.deviation is None else f" ± {100 * value.deviation:.1f}"
    return f"{100 * value.mean:.1f}{deviation} %"
