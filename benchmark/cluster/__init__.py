"""The controller's half, which works from files alone. Nothing here imports benchmark.node or torch."""
