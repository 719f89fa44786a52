"""Espalier base models from a folder."""

from __future__ import annotations

from espalier_hub.folder import Folder

__all__ = ["Folder"]
