"""Figures for Prometheus."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One server's figures; `counts` gives how many jobs there are of each state."""

    def __init__(self, counts: Callable[[], Mapping[str, int]]):
        self.registry = registry = CollectorRegistry()
        self.submitted = Counter(
            "safelight_jobs_submitted_total", "Jobs taken in.", ["model"], registry=registry
        )
        self.pictures = Counter(
            "safelight_pictures_total", "Pictures that were made.", registry=registry
        )
        self.job_seconds = Histogram(
            "safelight_job_seconds",
            "From a job's beginning to its end.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.requests = Histogram(
            "safelight_http_request_seconds",
            "From a request to its answer's head.",
            ["method", "route", "status"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.models = Counter(
            "safelight_models_total", "Models loaded and evicted.", ["what"], registry=registry
        )
        self.worker_memory = Gauge(
            "safelight_worker_memory_bytes", "Memory of the worker.", registry=registry
        )
        self.worker_deaths = Gauge(
            "safelight_worker_deaths", "Workers that died since the start.", registry=registry
        )
        self.watchers = Gauge("safelight_watchers", "Clients that wait.", registry=registry)
        registry.register(_Jobs(counts))

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class _Jobs(Collector):
    """Jobs by their states, asked of the store when figures are."""

    def __init__(self, counts: Callable[[], Mapping[str, int]]):
        self.counts = counts

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("safelight_jobs", "Jobs that are kept.", labels=["state"])
        for state, number in self.counts().items():
            family.add_metric([state], number)
        yield family
