"""SMTP and LMTP as engines without I/O, clock or randomness: bytes in, events and bytes out."""
