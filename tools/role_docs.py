"""Write the variables' table of every role's README from its meta/argument_specs.yml, or check that it is current.

python tools/role_docs.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[1] / "roles"
BEGIN, END = "<!-- variables: made by tools/role_docs.py -->", "<!-- end of variables -->"


def table(specs: dict[str, Any]) -> str:
    """Return the Markdown table of the main entry point's options."""
    options: dict[str, dict[str, Any]] = specs["argument_specs"]["main"].get("options") or {}
    lines = ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, option in options.items():
        kind = option["type"]
        if choices := option.get("choices"):
            kind += ": " + ", ".join(f"`{choice}`" for choice in choices)
        default = "required" if option.get("required") else _shown(option.get("default"))
        lines.append(f"| `{name}` | {kind} | {default} | {option['description']} |")
    return "\n".join(lines)


def _shown(default: Any) -> str:
    if default is None:
        return ""
    return f"`{default}`" if isinstance(default, str) and default else f"`{json.dumps(default)}`"


def current(role: Path) -> str:
    """Return what the role's README has to be: its own words around the table."""
    readme = (role / "README.md").read_text(encoding="utf-8")
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{role.name}/README.md lacks the lines '{BEGIN}' and '{END}'")
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    return f"{before}{BEGIN}\n\n{table(specs)}\n\n{END}{after}"


def main() -> int:
    """Write or check all; return 1 where the check found one out of date."""
    stale = []
    for role in sorted(path.parent.parent for path in ROLES.glob("*/meta/argument_specs.yml")):
        readme = role / "README.md"
        wanted = current(role)
        if wanted == readme.read_text(encoding="utf-8"):
            continue
        if "--check" in sys.argv[1:]:
            stale.append(role.name)
        else:
            readme.write_text(wanted, encoding="utf-8")
    if stale:
        print(f"out of date: README.md of {', '.join(stale)}; run make role-docs")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
