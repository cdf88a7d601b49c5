"""Load what every worker needs once, in the process that forks the workers.

ansible-core forks a worker for each task on each node, and loads the connection plugin and all filters in the worker,
which is half the cost of a short task. Before it forks the first worker for an action, it imports the action's module,
and with it this one.
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
# Loading one loads all.
filter_loader.get("default")
test_loader.get("defined")
# Validators are otherwise built at first use, which takes longer than reading a record.
for record in (Settings, Profile, ResolvedSettings, RunOrder, RunRecord):
    record.model_rebuild()
# Garbage collection in a worker would touch, and so copy, every page that it shares with its parent.
gc.freeze()
