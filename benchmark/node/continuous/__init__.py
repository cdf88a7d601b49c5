"""The engine `continuous`: transformers' continuous batching, its attention, memory plan and steps."""
