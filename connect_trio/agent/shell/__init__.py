"""What SSH users find in a Studio: shells, commands, subsystems, forwards. No SSH is here: docs/channels.md."""
