"""For tests of an endpoint: fakes for a gateway without Ray, and the program as a child process."""

from __future__ import annotations

from espalier_serving.testing.gateway import FixedCaller, make_key, model_ref, ready_endpoint

__all__ = ["FixedCaller", "make_key", "model_ref", "ready_endpoint"]
