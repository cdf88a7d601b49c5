"""The run as one HTML page that opens from disk: `report.html`. No script, no remote asset, charts as SVG."""
