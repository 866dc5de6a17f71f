"""The errors that a user can fix: one line on the terminal and an exit code, never a traceback."""

LONGEST_WORD, LONGEST_LINE = 300, 1000  # characters of a message that are shown


class ProjectError(Exception):
    """The work cannot be done; the message states the rule, the values, the file, and the fix."""

    exit_code = 1


class UsageError(ProjectError):
    """The command, or a file it names, cannot be used as given."""

    exit_code = 2


class DataError(ProjectError):
    """Input data are missing or invalid."""

    exit_code = 2


def one_line(message: object) -> str:
    """Show a message, which may contain names of any characters and length, as one printable line."""
    words = (_shortened(printable(word), LONGEST_WORD) for word in str(message).split())
    return _shortened(" ".join(words), LONGEST_LINE)


def printable(text: str, kept: str = "") -> str:
    """Escape characters that a terminal would not show but obey, except those in `kept`."""
    if text.isprintable():
        return text
    return "".join(c if c in kept or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shortened(text: str, longest: int) -> str:
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"
