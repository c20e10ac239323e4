"""Turning a checkpoint into an artifact, and proving that the two answer alike."""
