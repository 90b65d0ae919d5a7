"""Certificates for public addresses and names, from an ACME server (RFC 8555, 8738, 8737)."""
