"""Espalier service: models to an A/B endpoint, on Ray Serve."""
