"""Waypost beside Postfix and aiosmtpd: the same load, in rounds, on one machine."""
