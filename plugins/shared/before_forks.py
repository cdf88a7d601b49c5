"""What every worker needs is loaded once, in the process that forks them.

ansible-core forks a worker for each task on each node, and loads the connection's plugin and all filters in the worker,
where they are lost again: half of what a short task costs. Before it forks the first worker for an action, it imports
the action's module, and so this one.
"""

from __future__ import annotations

import gc

import checkout  # noqa: F401 # puts the checkout on the path
from ansible.plugins.loader import connection_loader, filter_loader, shell_loader, test_loader

from benchmark.profiles import Profile
from benchmark.records import RunRecord
from benchmark.rundir import RunOrder
from benchmark.settings import ResolvedSettings, Settings

connection_loader.get("ssh", class_only=True)
shell_loader.get("sh", class_only=True)
# One of them brings all.
filter_loader.get("default")
test_loader.get("defined")
# What validates a record is built when it is first used, which takes longer than to read one.
for record in (Settings, Profile, ResolvedSettings, RunOrder, RunRecord):
    record.model_rebuild()
# A worker that collects garbage touches, and so copies, every page that it shares with the process that forked it.
gc.freeze()
