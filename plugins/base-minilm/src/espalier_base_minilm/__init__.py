"""Espalier base model all-MiniLM-L6-v2, bundled as a Python package, so that the default needs no hub."""

from __future__ import annotations

from espalier_base_minilm.minilm import MiniLM

__all__ = ["MiniLM"]
