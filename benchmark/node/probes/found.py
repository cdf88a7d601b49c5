"""The available probes: every module of this package with a SCOPE."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from benchmark.node import probes
from benchmark.node.probes.interfaces import Scope


def of_scope(scope: Scope) -> list[Any]:
    """Return the probes of a scope, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(probes.__path__) if not module.name.startswith("_"))
    modules = [importlib.import_module(f"{probes.__name__}.{name}") for name in names]
    return [module for module in modules if getattr(module, "SCOPE", None) == scope]
