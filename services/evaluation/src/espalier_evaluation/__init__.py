"""Espalier service: a model and a dataset to an evaluation, by Ray Data batch inference."""
