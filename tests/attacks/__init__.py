"""The attacks of docs/explanation/security.md, each on the wire against a running hub.

A test's name begins with the number of its attack: `test_attack_11_…`, `test_attacks_43_to_46_…`.
"""
