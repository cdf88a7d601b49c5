"""What every worker needs is loaded once, in the process that forks them.

ansible-core forks a worker for each task on each node, and loads the connection's plugin and all filters in the worker,
where they are lost again: half of what a short task costs. Before it forks the first worker for an action, it imports
the action's module, and so this one.
"""

from __future__ import annotations

import gc

from ansible.plugins.loader import connection_loader, filter_loader, shell_loader, test_loader

connection_loader.get("ssh", class_only=True)
shell_loader.get("sh", class_only=True)
# One of them brings all.
filter_loader.get("default")
test_loader.get("defined")
# A worker that collects garbage touches, and so copies, every page that it shares with the process that forked it.
gc.freeze()
