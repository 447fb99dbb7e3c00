"""What people and programs read of a run: tables, plots, the JSON document, one HTML page."""
