"""What watches the mirror: rules of alerts, their page, and the dashboard."""
