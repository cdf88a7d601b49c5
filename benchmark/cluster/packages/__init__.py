"""The wheels that nodes install."""
