"""What `make` runs: standard library only, so that it works before anything is installed."""
