"""Specs: the models, and reading them from YAML with every error of a file at once."""

from __future__ import annotations

from espalier_runtime.specs.document import SpecDocument
from espalier_runtime.specs.models import Candidate, DataSpec, From, ServeSpec, Spec
from espalier_runtime.specs.reading import load_spec

__all__ = ["Candidate", "DataSpec", "From", "ServeSpec", "Spec", "SpecDocument", "load_spec"]
