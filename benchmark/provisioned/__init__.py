"""The engines that the project installs: one file each, with a declaration called ENGINE.

Each has a role with the same name.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from pydantic import BaseModel, create_model

from benchmark.provisioned_engine import ProvisionedEngine


def _declared() -> dict[str, ProvisionedEngine]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found: list[ProvisionedEngine] = [importlib.import_module(f"{__name__}.{name}").ENGINE for name in names]
    return {engine.name: engine for engine in found}


ENGINES = _declared()
"""By name."""

PROVISIONING_ROLES = ("python_env", *ENGINES, "hf_cache")
"""The provisioning roles, in order.

Their names are the prefixes of their settings, and each registers ROLE_made, which says whether it failed.
"""

FROM_SERVERS = f"{', '.join(ENGINES)} or endpoint"
"""The engines that measure a server, in words: a server may do what our own engines cannot."""

if TYPE_CHECKING:

    class EngineSettings(BaseModel):
        """The settings of all engines' environments: see `ProvisionedEngine.settings_fields`."""

else:
    EngineSettings = create_model(
        "EngineSettings",
        **{name: field for engine in ENGINES.values() for name, field in engine.settings_fields().items()},
    )
