"""Crafts sample captures whose bytes are the same on every run: fixed clock, MAC addresses and IP identifiers."""
