"""A small Platform for development: an OpenID Connect provider, users, sessions, and Connect's contract."""
