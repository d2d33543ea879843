"""The SSH edge: OpenSSH, sftp and VS Code into a Studio. docs/ssh.md tells what it offers."""
