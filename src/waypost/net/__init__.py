"""The ground outgoing and incoming connections stand on: addresses, interfaces, the gate."""
