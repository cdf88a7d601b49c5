"""Text for people: formatting of words and numbers, and records in words."""
