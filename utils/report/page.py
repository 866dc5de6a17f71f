"""Render the templates of this package: each page is one HTML file that needs no network; every value is escaped."""

import functools
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev

from jinja2 import Environment, FileSystemLoader, StrictUndefined

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
    page.filters |= {f.__name__: f for f in (known, typed, percent, points, number, duration, durations, spread)}
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
    return f"{100 * difference:+.1f}"


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
    seconds = [value for value in values if value is not None]
    if not seconds:
        return "-"
    return duration(mean(seconds)) + (f" ± {duration(stdev(seconds))}" if len(seconds) > 1 else "")


def spread(values: Iterable[float | None], scale: float, unit: str) -> str:
    """Mean and standard deviation of the values that are not None."""
    scaled = [scale * value for value in values if value is not None]
    if not scaled:
        return "-"
    deviation = f" ± {stdev(scaled):.1f}" if len(scaled) > 1 else ""
    return f"{mean(scaled):.1f}{deviation} {unit}"
