"""Visitors over HTTP and WebSocket."""
