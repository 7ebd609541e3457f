"""What a session was shown and refused, as its user is told at the end."""

from __future__ import annotations

from anchorhold.broker.record import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from anchorhold.broker.record import Recorder


class Summary:
    """What a session was shown and refused, from the supervisor's own books."""

    def __init__(
        self,
        recorder: Recorder,
        layers: dict[str, str],
        missing: dict[str, str],
        phase: str,
        hidden: int,
        left_out: int,
    ) -> None:
        """hidden: names in listings that the policy's deny patterns hid; left_out: those that were left out
        for another reason (a second name, a link that leads out)."""
        self.session = recorder.session
        self.shown = [(text(path), digest, size) for path, (digest, size) in recorder.shown.items()]
        self.refused_total = recorder.denied
        self.refused = [
            (text(path) if path else call, why, times)
            for (call, path, why), times in recorder.examples.items()
        ]
        self.layers, self.missing, self.phase = layers, missing, phase
        self.hidden, self.left_out = hidden, left_out
