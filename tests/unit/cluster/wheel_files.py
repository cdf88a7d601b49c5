"""Makes small real wheels and source archives, which pip installs."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from benchmark.cluster.packages.resolver import Wheel

TAG = "py3-none-any"


def wheel(name: str, version: str, *requires: str, tag: str = TAG, python: str = "", size: int = 1) -> Wheel:
    """Return a wheel's record, as the manifest of a wheelhouse holds it."""
    return Wheel(
        file=f"{name.replace('-', '_')}-{version}-{tag}.whl",
        name=name,
        version=version,
        size=size,
        sha256=hashlib.sha256(f"{name}{version}{tag}".encode()).hexdigest(),
        source="package index",
        requires=list(requires),
        requires_python=python,
    )


def wheel_content(
    name: str, version: str, *requires: str, tag: str = TAG, more: Mapping[str, str] | None = None
) -> bytes:
    """Return the bytes of a wheel with one module and `more` files; `{info}` in a path is its metadata's directory."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {one}\n" for one in requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: {tag}\n",
        **{path.format(info=info): text for path, text in (more or {}).items()},
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return content.getvalue()


def make_wheel(
    directory: Path, name: str, version: str, *requires: str, tag: str = TAG, more: Mapping[str, str] | None = None
) -> Path:
    """Write a wheel and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name.replace('-', '_')}-{version}-{tag}.whl"
    path.write_bytes(wheel_content(name, version, *requires, tag=tag, more=more))
    return path


def make_source(directory: Path, name: str, version: str, tag: str = TAG) -> Path:
    """Write a source archive whose build needs nothing that is not in it, and makes a wheel with `tag`."""
    built = f"{name}-{version}-{tag}.whl"
    backend = f"""
import pathlib
def build_wheel(directory, config_settings=None, metadata_directory=None):
    pathlib.Path(directory, {built!r}).write_bytes({wheel_content(name, version, tag=tag)!r})
    return {built!r}
"""
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in (("backend.py", backend), ("pyproject.toml", project), ("PKG-INFO", info)):
            entry = tarfile.TarInfo(f"{name}-{version}/{file}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path
