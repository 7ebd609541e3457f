"""Counters for Prometheus (exposition format 0.0.4). Labels: policy, endpoint, status, outcome; nothing else.

No path, no prompt, no principal: endpoints are those of a fixed table, policies those of the supervisor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
STATES = ("starting", "serving", "idle", "reloading", "frozen", "latched", "failed")
# Figures of the supervisor: what they are called here, and whether they only grow.
FIGURES = {
    "memory": ("anchorhold_worker_memory_bytes", "gauge", "Resident memory of the worker, model included."),
    "restarts": ("anchorhold_worker_restarts_total", "counter", "Restarts of the worker."),
    "denials": ("anchorhold_denials", "gauge", "Accesses that were refused to the present worker."),
    "shown": ("anchorhold_files_shown", "gauge", "Files that the present worker was shown."),
    "requests": ("anchorhold_requests_served_total", "counter", "Requests that the worker has served."),
    "waiting": ("anchorhold_requests_waiting", "gauge", "Requests that wait for the worker."),
    "output_tokens": ("anchorhold_output_tokens_total", "counter", "Tokens that were generated."),
}


class Histogram:
    """Seconds in buckets."""

    def __init__(self) -> None:
        self.counts = [0] * len(BUCKETS)
        self.total = 0
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.total += 1
        self.sum += seconds
        for index, bound in enumerate(BUCKETS):
            if seconds <= bound:
                self.counts[index] += 1


class Metrics:
    """All counters of one gateway."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.left = 0
        self.refused: Counter[str] = Counter()
        self.first: dict[str, Histogram] = {}
        self.tokens: Counter[tuple[str, str]] = Counter()
        self.connections = 0

    def answered(self, endpoint: str, status: int) -> None:
        self.answers[endpoint, status] += 1

    def first_token(self, policy: str, seconds: float) -> None:
        self.first.setdefault(policy, Histogram()).observe(seconds)

    def used(self, policy: str, prompt: int, output: int) -> None:
        self.tokens[policy, "prompt"] += prompt
        self.tokens[policy, "output"] += output

    def text(self, policies: Iterable[dict[str, Any]], in_flight: Counter[str]) -> str:
        """The page for those policies that whoever asks may see."""
        known = list(policies)
        names = {policy["name"] for policy in known}
        out = _Page()
        out.head("anchorhold_http_answers_total", "counter", "Answers by endpoint and status.")
        for (endpoint, status), times in sorted(self.answers.items()):
            out.line("anchorhold_http_answers_total", times, endpoint=endpoint, status=str(status))
        out.head("anchorhold_http_refused_total", "counter", "Requests refused before they were read.")
        for reason, times in sorted(self.refused.items()):
            out.line("anchorhold_http_refused_total", times, reason=reason)
        out.head("anchorhold_http_left_total", "counter", "Clients that left before their answer ended.")
        out.line("anchorhold_http_left_total", self.left)
        out.head("anchorhold_http_connections", "gauge", "Open connections.")
        out.line("anchorhold_http_connections", self.connections)
        out.head("anchorhold_in_flight", "gauge", "Requests being answered or waiting.")
        for name in sorted(names):
            out.line("anchorhold_in_flight", in_flight[name], policy=name)
        out.head("anchorhold_state", "gauge", "1 for the state that the policy is in.")
        for policy in known:
            for state in STATES:
                out.line(
                    "anchorhold_state", int(policy["state"] == state), policy=policy["name"], state=state
                )
        for key, (metric, kind, words) in FIGURES.items():
            out.head(metric, kind, words)
            for policy in known:
                if key in policy["figures"]:
                    out.line(metric, policy["figures"][key], policy=policy["name"])
        out.head("anchorhold_tokens_total", "counter", "Tokens of answered requests.")
        for (name, kind), number in sorted(self.tokens.items()):
            if name in names:
                out.line("anchorhold_tokens_total", number, policy=name, kind=kind)
        self._first_tokens(out, names)
        return out.text()

    def _first_tokens(self, out: _Page, names: set[str]) -> None:
        metric = "anchorhold_first_token_seconds"
        out.head(metric, "histogram", "From the request to its first token.")
        for name, histogram in sorted(self.first.items()):
            if name not in names:
                continue
            for bound, times in zip(BUCKETS, histogram.counts, strict=True):
                out.line(f"{metric}_bucket", times, policy=name, le=f"{bound:g}")
            out.line(f"{metric}_bucket", histogram.total, policy=name, le="+Inf")
            out.line(f"{metric}_sum", round(histogram.sum, 6), policy=name)
            out.line(f"{metric}_count", histogram.total, policy=name)


class _Page:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def head(self, name: str, kind: str, words: str) -> None:
        self._lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]

    def line(self, name: str, value: float, **labels: str) -> None:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        self._lines.append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
