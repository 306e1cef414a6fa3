"""What dashboards ask the record."""
