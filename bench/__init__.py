"""Latency beside accuracy, for every backend that exists here, measured so that it can be believed."""
