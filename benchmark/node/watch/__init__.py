"""What a node is and does while it measures: its hardware, its processes, its telemetry."""
