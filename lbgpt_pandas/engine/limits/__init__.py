"""Limits of a deployment: what may be sent, and when."""
