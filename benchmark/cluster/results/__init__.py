"""What came back from nodes: read, held against itself, and compared."""
