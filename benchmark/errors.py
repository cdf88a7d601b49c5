"""The errors of the benchmark, each with its exit code.

A message is one or more sentences for a user: what went wrong, where, and what to do.
"""

EXIT_VALID = 0
EXIT_INVALID = 1


class BenchmarkError(Exception):
    """A failure that a user can act on; `exit_code`: the exit code of `python3 -m benchmark`."""

    exit_code = 4


class InputError(BenchmarkError):
    """Settings, arguments or input files are wrong; nothing was touched."""

    exit_code = 2


class SetupError(BenchmarkError):
    """The node is not fit to run: no GPU, no model, a package missing."""

    exit_code = 3


class Unfit(SetupError):
    """The engine cannot serve this model on this node; another engine may."""


class RunError(BenchmarkError):
    """The run itself broke."""

    exit_code = 4


def in_words(error: Exception) -> str:
    """Return the error's message: that of a BenchmarkError as it is, any other with its type."""
    return str(error) if isinstance(error, BenchmarkError) else f"{type(error).__name__}: {error}"
