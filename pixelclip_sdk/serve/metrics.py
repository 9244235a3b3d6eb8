"""What Prometheus reads at ``/metrics``."""

from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pixelclip_sdk._version import __version__

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # Memory, CPU time and open files; on Linux only.
        self.requests = Counter(
            "pixelclip_requests", "Answered requests.", ["route", "method", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "pixelclip_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ["route"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.queue_seconds = Histogram(
            "pixelclip_queue_seconds", "Time until a worker was free.", registry=registry, buckets=_SECONDS
        )
        self.stage_seconds = Histogram(
            "pixelclip_stage_seconds",
            "Time of an image in a stage.",
            ["model", "stage"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.frames = Counter(
            "pixelclip_frames", "Segmented images and frames.", ["model", "stream"], registry=registry
        )
        self.frame_seconds = Histogram(
            "pixelclip_frame_seconds",
            "Time from the arrival of a frame of a live stream to its result.",
            ["model", "stream"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.dropped = Counter(
            "pixelclip_dropped_frames",
            "Frames of live streams that a newer one replaced.",
            ["stream"],
            registry=registry,
        )
        self.errors = Counter("pixelclip_errors", "Errors by kind.", ["code"], registry=registry)
        self.shed = Counter(
            "pixelclip_shed", "Requests refused because the server was busy.", registry=registry
        )
        self.viewers = Gauge("pixelclip_viewers", "Open live connections.", registry=registry)
        self._waiting = Gauge("pixelclip_waiting", "Requests that wait for a worker.", registry=registry)
        self._running = Gauge("pixelclip_running", "Requests that a worker computes.", registry=registry)
        self._vocabularies = Gauge("pixelclip_vocabularies", "Vocabularies that are kept.", registry=registry)
        info = Gauge("pixelclip_info", "The version of the SDK.", ["version"], registry=registry)
        info.labels(__version__).set(1)

    def watch(
        self, waiting: Callable[[], int], running: Callable[[], int], vocabularies: Callable[[], int]
    ) -> None:
        """Read these numbers whenever Prometheus asks."""
        self._waiting.set_function(waiting)
        self._running.set_function(running)
        self._vocabularies.set_function(vocabularies)

    def segmented(self, model: str, stream: str, speed: Mapping[str, float]) -> None:
        """Count an image and the milliseconds of its stages. From any thread."""
        self.frames.labels(model, stream).inc()
        for stage, time_ms in speed.items():
            if stage != "total":
                self.stage_seconds.labels(model, stage).observe(time_ms / 1e3)

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self._registry)
