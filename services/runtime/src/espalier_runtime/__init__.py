"""What every Espalier service does while running: specs, plugins, store, request digests, tracking."""
