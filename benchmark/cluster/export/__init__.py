"""A run's nodes and samples for other programs: spreadsheets, notebooks, Grafana."""
