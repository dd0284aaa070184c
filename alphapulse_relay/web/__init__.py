"""The side port: metrics, health and status. Reads the hub, never changes it."""
