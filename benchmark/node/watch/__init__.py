"""A node's state during a measurement: its hardware, its processes, its telemetry."""
