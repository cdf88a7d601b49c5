"""Ansible runs in a UTF-8 locale alone, and ends the process in any other, also where only a setting is asked for."""

from __future__ import annotations

import locale


def utf8_locale() -> dict[str, str]:
    """Return what has to change of the environment for Ansible; mostly nothing.

    A locale that is not installed is what an SSH login brings along from somebody's laptop, and C is what scripts set.
    """
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")
        encoding = locale.getlocale()[1]
    except (locale.Error, ValueError):
        encoding = None
    finally:
        locale.setlocale(locale.LC_ALL, before)
    # One that is always there; nothing here is translated.
    return {} if (encoding or "").lower() in ("utf-8", "utf8") else {"LC_ALL": "C.UTF-8"}
