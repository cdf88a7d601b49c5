"""Text for people: how words and numbers are set, and what records come to in words."""
