"""Read regular files and JSON; a damaged file raises one of the project's own errors, which names the file.

A named pipe or a device would block or never end, so only regular files are opened. `utils.arrays` reads arrays.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import stat
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import ProjectError, UsageError
from utils.files import errors_name

MOST_JSON = 64 << 20  # bytes of a JSON file; the largest that a run writes have some 100 KB
MOST_NESTED = 32  # levels of a JSON value
MOST_DIGITS = 300  # of an integer
BLOCK = 1 << 20  # bytes read at a time to compute a checksum
Error = type[ProjectError]


def open_file(path: Path, error: Error = UsageError) -> BinaryIO:
    """Open a regular file for reading, unbuffered.

    Raises:
        error: it is a named pipe, a socket or a device.
        OSError: it does not exist, is a folder, or may not be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a pipe must not wait for a writer
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb", buffering=0)
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise error(f"{path} must be a regular file, but is a {'named pipe' if stat.S_ISFIFO(mode) else 'device'}")


def read_bytes(path: Path, error: Error = UsageError) -> bytes:
    """Read a whole file; see `open_file`."""
    with open_file(path, error) as file, errors_name(path):
        return file.read()


def sha256(content: Path | bytes | memoryview | BinaryIO, most: int | None = None) -> str:
    """SHA-256 of bytes, or of a file from its first byte, in hexadecimal.

    Args:
        most: bytes of a file to read; of a larger one, evenly spaced blocks are read.
    """
    if isinstance(content, Path):
        with open_file(content) as file, errors_name(content):
            return sha256(file, most)
    if isinstance(content, bytes | memoryview):
        return hashlib.sha256(content).hexdigest()
    digest, size = hashlib.sha256(), os.fstat(content.fileno()).st_size
    for at in range(0, size, BLOCK * max(1, -(-size // (most or size or 1)))):
        digest.update(os.pread(content.fileno(), BLOCK, at))
    return digest.hexdigest()


# JSON


def parse_json(content: str | bytes) -> Any:
    """Parse JSON; NaN and Infinity, as Python writes them, become None.

    Raises:
        ValueError: it is not JSON, is nested more than `MOST_NESTED` deep, or holds a number that no float can hold.
    """
    text = content if isinstance(content, str) else content.decode()
    deep = ValueError(f"it is nested more than {MOST_NESTED} deep")
    try:
        value = json.loads(text, parse_constant=lambda name: None, parse_int=_integer, parse_float=_finite)
    except RecursionError:
        raise deep from None
    level = [value]
    for _ in range(MOST_NESTED):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [value for values in inner for value in values]
    if level:
        raise deep
    if "\\u" in text:
        # ValueError: half a character, which no file can hold; the bytes of file names in no encoding are legal
        json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:  # beyond about 308, no float can hold it
        raise ValueError(f"an integer has more than {MOST_DIGITS} digits")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def conform(value: object, schema: Any, name: str = "it") -> None:
    """Check the form of a JSON value.

    Args:
        schema: a type (float includes int; neither includes bool); None; {key: schema}, where a key that ends in "?"
            may be missing, and the key `...` stands for all others, which are ignored without it; [schema] for a list;
            a tuple of schemas, one of which fits; or a function that raises ValueError, with a message such as "must be
            even".
        name: of the value, for the message.

    Raises:
        ValueError: it has another form.
    """
    if isinstance(schema, tuple):
        for one in schema[:-1]:
            with contextlib.suppress(ValueError):
                return conform(value, one, name)
        return conform(value, schema[-1], name)
    if isinstance(schema, types.FunctionType):
        try:
            schema(value)
        except ValueError as error:
            raise ValueError(f"{name} {error}" if str(error).startswith("must") else str(error)) from None
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise _unfit(name, "a list", value)
        for i, item in enumerate(value):
            conform(item, schema[0], f"{name}[{i}]")
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            raise _unfit(name, "an object", value)
        for key, inner in schema.items():
            others = [one for one in value if one not in schema]
            for one in others if key is ... else [key.removesuffix("?")]:
                if one in value:
                    own = one if str(one).isidentifier() and len(one) < 80 else shown(one)
                    conform(value[one], inner, own if name == "it" else f"{name}.{own}")
                elif not key.endswith("?"):
                    raise ValueError(f"{name} lacks {one!r}")
    elif schema is float or schema is int:
        if type(value) is not int and (schema is int or type(value) is not float):
            raise _unfit(name, "an integer" if schema is int else "a number", value)
    elif not isinstance(value, schema or type(None)):
        words = {str: "text", bool: "true or false", dict: "an object", list: "a list"}
        raise _unfit(name, words.get(schema, str(schema)), value)
    return None


def at_least_0(value: object) -> None:
    """A schema: a number that is not negative."""
    if type(value) not in (int, float) or value < 0:  # type: ignore[operator]
        raise ValueError(f"must be a number of at least 0, but is {shown(value)}")


def _unfit(name: str, wanted: str, value: object) -> ValueError:
    return ValueError(f"{name if name.isprintable() else ascii(name)} must be {wanted}, but is {shown(value)}")


def shown(value: object) -> str:
    """Show a value in at most 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def read_json(path: Path, schema: Mapping | None = None, missing: dict | None = None) -> dict:
    """Read a JSON object of some form.

    Args:
        schema: see `conform`; None: any object.
        missing: returned if there is no file; None: there must be one.

    Raises:
        UsageError: the file does not exist, is larger than `MOST_JSON`, or holds anything else.
    """
    try:
        content = read_json_bytes(path)
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise UsageError(f"{path} does not exist") from None
    try:
        value = parse_json(content)
    except ValueError as problem:
        raise UsageError(f"{path} is not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} must hold a JSON object, but holds a {type(value).__name__}")
    try:
        conform(value, schema or {})
    except ValueError as problem:
        raise UsageError(f"{path} is damaged: {problem}") from None
    return value


def read_json_bytes(path: Path) -> bytes:
    """Read a file of JSON, or of lines of JSON, of at most `MOST_JSON` bytes."""
    with open_file(path) as file, errors_name(path):
        size = os.fstat(file.fileno()).st_size
        if size > MOST_JSON:
            raise UsageError(f"{path} must have at most {MOST_JSON:,} bytes, but has {size:,}")
        return file.read()
