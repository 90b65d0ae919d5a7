"""TLS: contexts for both sides, and a private authority for hosts that have an address only."""
