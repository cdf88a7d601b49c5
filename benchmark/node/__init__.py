"""The node's half: what runs on a GPU host. Nothing here imports benchmark.cluster."""
