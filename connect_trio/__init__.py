"""Connect: a session gateway that lets visitors reach tools in containers without inbound network."""

__version__ = "0.1.0"
