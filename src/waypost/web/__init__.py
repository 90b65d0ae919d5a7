"""The hub's HTTP port: what programs ask of it there, and what they bring."""
