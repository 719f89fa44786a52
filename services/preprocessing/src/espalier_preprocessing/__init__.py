"""Espalier service: a corpus to a dataset, on Ray Data."""
