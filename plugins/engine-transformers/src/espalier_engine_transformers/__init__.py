"""Espalier engine that answers with a Hugging Face transformers model."""

from __future__ import annotations

from espalier_engine_transformers.engine import TransformersEngine

__all__ = ["TransformersEngine"]
