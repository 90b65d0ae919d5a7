"""Asking web servers: token endpoints, hooks, policies."""
