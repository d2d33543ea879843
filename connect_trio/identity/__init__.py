"""Who somebody is: tokens, OpenID Connect, and what Platform says of permissions."""
