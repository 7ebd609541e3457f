"""Live copies of the log's entries for journald and syslog (docs/export.md).

Constraint: a copy is a courtesy. It can neither delay nor veto what the log permits, and it proves nothing:
it can be lost, and what is lost is counted. `send` only puts the entry into a queue that has a bound; a
thread makes the message and sends it, without ever waiting where it would hold up anything else.

::

    copies = Copies(policy.audit.copy, names=True)      # PolicyError for a target that is none
    copies.send(entry)                                  # after the entry is in the log
    copies.close()                                      # sends what is queued, for half a second at most
    copies.lost                                         # entries that did not arrive, over all targets
"""

from __future__ import annotations

from anchorhold.audit.copies.copies import Copies
from anchorhold.audit.copies.targets import Target, parse

__all__ = ["Copies", "Target", "parse"]
