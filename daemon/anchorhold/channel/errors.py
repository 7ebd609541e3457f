"""The one error of the protocol."""

from __future__ import annotations


class ProtocolError(Exception):
    """What arrived, or was about to be sent, is no message of the protocol. The channel is of no more use."""
