"""Ansible requires a UTF-8 locale, and ends the process in any other, even if only a setting is read."""

from __future__ import annotations

import locale


def utf8_locale() -> dict[str, str]:
    """Return the environment changes that Ansible needs; mostly none.

    An SSH login may bring a laptop's locale that is not installed here, and scripts set C.
    """
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")
        encoding = locale.getlocale()[1]
    except (locale.Error, ValueError):
        encoding = None
    finally:
        locale.setlocale(locale.LC_ALL, before)
    # Always installed; nothing here is translated.
    return {} if (encoding or "").lower() in ("utf-8", "utf8") else {"LC_ALL": "C.UTF-8"}
