"""The MQTT broker of the house: one connection, and what devices' mail becomes there."""
