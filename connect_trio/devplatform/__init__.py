"""A small Platform for development: an OpenID Connect provider, two users, two sessions, and Connect's contract."""
