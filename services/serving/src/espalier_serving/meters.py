"""What the gateway counts. Labels come from configuration only, never from clients."""

from __future__ import annotations

from typing import Protocol

_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
_OVERHEAD_SECONDS = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0]


class Meters(Protocol):
    """What is counted."""

    def request(
        self, *, endpoint: str, experiment: str, variant: str, code: int, seconds: float, overhead: float
    ) -> None:
        """Counts an answer with its duration and the gateway's own part of it."""
        ...

    def variant_error(self, *, endpoint: str, experiment: str, variant: str, code: str) -> None:
        """Counts a variant that gave no answer, whoever answered in its place."""
        ...

    def exposure(self, reason: str) -> None:
        """Counts an exposure."""
        ...

    def feedback(self, status: str) -> None:
        """Counts an outcome."""
        ...

    def dropped(self, number: int) -> None:
        """Counts exposures and completions that are not in the database and never will be."""
        ...


class NoMeters:
    """Counts nothing; for a gateway outside Ray Serve."""

    def request(
        self, *, endpoint: str, experiment: str, variant: str, code: int, seconds: float, overhead: float
    ) -> None:
        """Does nothing."""

    def variant_error(self, *, endpoint: str, experiment: str, variant: str, code: str) -> None:
        """Does nothing."""

    def exposure(self, reason: str) -> None:
        """Does nothing."""

    def feedback(self, status: str) -> None:
        """Does nothing."""

    def dropped(self, number: int) -> None:
        """Does nothing."""


class ServeMeters:
    """Counts through Ray Serve, which adds deployment, replica and application to each metric."""

    def __init__(self) -> None:
        from ray.serve.metrics import Counter, Histogram

        labels = ("endpoint", "experiment", "variant")
        self._requests = Counter("espalier_requests_total", "Answers by status.", tag_keys=(*labels, "code"))
        self._seconds = Histogram(
            "espalier_request_duration_seconds", "Time in the gateway.", boundaries=_SECONDS, tag_keys=labels
        )
        self._overhead = Histogram(
            "espalier_router_overhead_seconds",
            "Time in the gateway without the wait for the variant.",
            boundaries=_OVERHEAD_SECONDS,
            tag_keys=("endpoint",),
        )
        self._errors = Counter(
            "espalier_variant_errors_total", "Variants that gave no answer, by error.", tag_keys=(*labels, "code")
        )
        self._exposures = Counter("espalier_exposures_total", "Exposures by reason.", tag_keys=("reason",))
        self._dropped = Counter("espalier_rows_dropped_total", "Exposures and completions that were lost.")
        self._feedback = Counter("espalier_feedback_total", "Outcomes by status.", tag_keys=("status",))

    def request(
        self, *, endpoint: str, experiment: str, variant: str, code: int, seconds: float, overhead: float
    ) -> None:
        """Counts an answer with its duration and the gateway's own part of it."""
        labels = {"endpoint": endpoint, "experiment": experiment, "variant": variant}
        self._requests.inc(tags={**labels, "code": str(code)})
        self._seconds.observe(seconds, tags=labels)
        self._overhead.observe(overhead, tags={"endpoint": endpoint})

    def variant_error(self, *, endpoint: str, experiment: str, variant: str, code: str) -> None:
        """Counts a variant that gave no answer, whoever answered in its place."""
        self._errors.inc(tags={"endpoint": endpoint, "experiment": experiment, "variant": variant, "code": code})

    def exposure(self, reason: str) -> None:
        """Counts an exposure."""
        self._exposures.inc(tags={"reason": reason})

    def feedback(self, status: str) -> None:
        """Counts an outcome."""
        self._feedback.inc(tags={"status": status})

    def dropped(self, number: int) -> None:
        """Counts exposures and completions that are not in the database and never will be."""
        self._dropped.inc(number)
