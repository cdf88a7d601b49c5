"""Jinja2 environments, with templates that are compiled once and cached like Python modules.

Compiling those of a summary and its report takes a third as long as drawing the report.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

PACKAGE = Path(__file__).parent


def make_environment(templates: Path, name: str, *, autoescape: bool, **more: Any) -> Environment:
    """Return an environment for the templates in a directory; `name` distinguishes it from others for that directory.

    An undefined name in a template is an error. `more`: further arguments of Environment.
    """
    return Environment(
        loader=FileSystemLoader(templates),
        bytecode_cache=CompiledTemplates(templates, name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=autoescape,  # noqa: S701 # each says why where it is false
        **more,
    )


class CompiledTemplates(FileSystemBytecodeCache):
    """A cache of one environment's compiled templates; without one if the directory is not writable.

    `environment`: its name, because environments for one directory compile templates differently.
    """

    def __init__(self, templates: Path, environment: str) -> None:
        self._of_all_code = f"{environment}-*.jinja"
        super().__init__(str(templates / "__pycache__"), f"{environment}-{_code()}-%s.jinja")

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill the bucket, if its template is cached and readable."""
        with suppress(OSError):
            super().load_bytecode(bucket)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Cache a compiled template, and remove those of other code versions."""
        if sys.dont_write_bytecode:
            return
        with suppress(OSError):
            directory = Path(self.directory)
            directory.mkdir(exist_ok=True)
            for other in set(directory.glob(self._of_all_code)) - set(directory.glob(self.pattern % "*")):
                other.unlink(missing_ok=True)
            super().dump_bytecode(bucket)


@functools.cache
def _code() -> str:
    """Return a hash of our files' times: filters applied to constants are compiled into a template."""
    files = sorted(PACKAGE.rglob("*.py"))
    stats = [(path.relative_to(PACKAGE).as_posix(), path.stat()) for path in files]
    lines = [f"{name} {stat.st_mtime_ns} {stat.st_size}\n" for name, stat in stats]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]
