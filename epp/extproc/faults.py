"""What Envoy must not send."""


class ProtocolError(Exception):
    """Envoy sent what the protocol does not allow here."""
