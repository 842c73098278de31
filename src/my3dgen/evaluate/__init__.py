"""Measuring how well a method reproduces a person, and showing it."""
