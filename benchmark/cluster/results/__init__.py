"""Read the files that came back from nodes, check them against each other, and compare them."""
