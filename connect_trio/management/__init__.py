"""What operators ask a running process."""
