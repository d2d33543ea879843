"""Byte transports: sockets and WebSockets, without waiting where the kernel does not ask for it."""
