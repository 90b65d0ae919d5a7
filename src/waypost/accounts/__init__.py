"""Who may log in: accounts, their passwords, and the file they are kept in."""
