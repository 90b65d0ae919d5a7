"""What ends a benchmark."""


class BenchmarkError(Exception):
    """A number would be wrong: a message was lost, doubled or refused, or a peer did not start."""
