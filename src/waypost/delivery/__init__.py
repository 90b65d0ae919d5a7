"""How mail leaves the hub: one module for each transport."""
