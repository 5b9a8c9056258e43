"""Metrics as parsed by Prometheus' own client."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.server_process import ServerProcess

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Scrape:
    """The result of scraping a server.

    Args:
        text: The answer.
        openmetrics: Whether the answer is in that format.
    """

    def __init__(self, text: str, *, openmetrics: bool = False) -> None:
        self.text = text
        parse = parse_openmetrics if openmetrics else parse_text
        self.families: dict[str, Metric] = {family.name: family for family in parse(text)}

    def values(self, name: str, **labels: str) -> Iterator[float]:
        """Yields every sample with this name and these labels, whatever other labels it has."""
        for family in self.families.values():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    yield sample.value

    def value(self, name: str, **labels: str) -> float:
        """Returns the sum of these samples. Raises AssertionError if there are none."""
        values = list(self.values(name, **labels))
        assert values, f"no sample of {name} with {labels}"
        return sum(values)


def metrics_address(server: ServerProcess) -> str:
    """Returns the metrics address of a server that was started with `--metrics-listen 127.0.0.1:0`."""
    server.await_log("serving metrics")
    (line,) = (line for line in server.stderr.splitlines() if "serving metrics" in line)
    found = re.search(r"127\.0\.0\.1:\d+", line)
    assert found
    return found[0]


def scrape(server: ServerProcess, accept: str = "") -> Scrape:
    """Scrapes a server that was started with `--metrics-listen 127.0.0.1:0`."""
    request = urllib.request.Request(f"http://{metrics_address(server)}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.status == 200
        return Scrape(response.read().decode(), openmetrics=accept == OPENMETRICS)
