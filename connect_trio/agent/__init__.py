"""The private side: dials out from the container of a Studio and serves its streams."""
