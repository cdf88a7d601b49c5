"""Tests of what Ansible loads. A module finds its helpers in ansible.module_utils, as it does on the node."""

from pathlib import Path

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).parents[3] / "plugins" / "module_utils"))
