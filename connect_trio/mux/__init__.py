"""The wire: framing, flow control and multiplexing. Importing this package never imports trio."""
