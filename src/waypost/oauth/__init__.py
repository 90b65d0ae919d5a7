"""OAuth 2.0 (RFC 6749): getting tokens, keeping them, and refreshing them in time."""
