"""From the queue to the transports and back: lease, deliver, settle, report."""
