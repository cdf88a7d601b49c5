"""What comes from the hub: models and datasets, fetched, verified and kept in the cache."""
