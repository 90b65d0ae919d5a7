"""Typed settings from TOML and environment: every fault at once, with line, key and expectation."""
