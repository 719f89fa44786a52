"""Espalier base models from a folder and from the Hugging Face Hub."""

from __future__ import annotations

from espalier_hub.folder import Folder
from espalier_hub.huggingface import HuggingFace

__all__ = ["Folder", "HuggingFace"]
