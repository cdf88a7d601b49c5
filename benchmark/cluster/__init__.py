"""The cluster's half: what runs on the controller, from files alone. Nothing here imports benchmark.node or torch."""
