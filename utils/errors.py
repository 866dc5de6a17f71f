"""The errors that a user can fix: one line on the terminal and an exit code, never a traceback."""


class ProjectError(Exception):
    """The work cannot be done; the message states the rule, the values, the file, and the fix."""

    exit_code = 1


class UsageError(ProjectError):
    """The command, or a file it names, cannot be used as given."""

    exit_code = 2


class DataError(ProjectError):
    """Input data are missing or invalid."""

    exit_code = 2
