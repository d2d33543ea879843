"""Names to places: which server holds the tunnels of a session."""
