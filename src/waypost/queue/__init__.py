"""What keeps accepted mail until it is delivered: the store, the spool, the retry schedule."""
