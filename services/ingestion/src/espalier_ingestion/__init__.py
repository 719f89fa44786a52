"""Espalier service: sources to a corpus, on Ray Data."""
