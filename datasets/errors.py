"""The error that the data code raises for anything the user can mend."""


class DataError(Exception):
    """Bad or missing input data; the message names the file, the rule and what was found."""

    exit_code = 2
