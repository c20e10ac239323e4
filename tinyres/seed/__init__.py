"""The original project: its weights, read without running what they hold, and its history, as a run."""
