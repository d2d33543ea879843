"""SSH channels inside streams: what proxy and agent say to each other about one session. See docs/channels.md.

Pure: no I/O, no clock. `messages` is what is said, `frames` its layout, `windows` the credit of either direction,
`ends` what each end may say and when, `outbox` what waits to be said.
"""
