"""The name service: what is asked of it, and what it may answer."""
