"""From an address to where its mail goes: ours or not, which target, which hosts."""
