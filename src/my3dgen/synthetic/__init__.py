"""Procedural heads with exact labels, from CC0 shape data and no photograph of anyone."""
