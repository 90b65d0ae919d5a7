"""Hosts that send mail without a login, each known by its address: what they did, and should do."""
