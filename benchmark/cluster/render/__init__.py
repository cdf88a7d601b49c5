"""What people and CI systems read of a run."""
