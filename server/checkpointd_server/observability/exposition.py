"""Snapshots in Prometheus's formats, written by its client library."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from checkpointd_server.observability.families import FAMILIES, Snapshot


class _SnapshotCollector(Collector):
    """Presents a snapshot as a collector to the library's encoders."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yields every family that the snapshot has, in the order of the table."""
        for name, family in FAMILIES.items():
            samples = self._snapshot.get(name)
            if samples is None:
                continue
            if family.kind == "histogram":
                metric: Metric = HistogramMetricFamily(name, family.help, labels=family.labels)
            elif family.kind == "counter":
                metric = CounterMetricFamily(name, family.help, labels=family.labels)
            else:
                metric = GaugeMetricFamily(name, family.help, labels=family.labels)
            for labels, value in samples:
                if not isinstance(value, dict):
                    metric.add_metric(labels, value)  # type: ignore[attr-defined]
                    continue
                total, buckets = 0, []
                for bound, count in zip((*value["bounds"], float("inf")), value["counts"], strict=True):
                    total += count
                    buckets.append(("+Inf" if bound == float("inf") else f"{bound:g}", total))
                metric.add_metric(labels, buckets, value["sum"])  # type: ignore[attr-defined]
            yield metric


def encode(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Returns a snapshot as text, and its content type.

    Args:
        snapshot: The snapshot.
        accept: The scraper's Accept header. If it accepts OpenMetrics it gets that, else Prometheus's text format.
    """
    encoder, content_type = choose_encoder(accept)
    return encoder(_SnapshotCollector(snapshot)), content_type
