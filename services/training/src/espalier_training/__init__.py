"""Espalier service: a dataset, and a base model where one is used, to a model, on Ray Train."""
