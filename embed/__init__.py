"""Programs that use an artifact elsewhere, one folder a way: to be read, copied and changed, not imported."""
