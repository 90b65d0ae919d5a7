"""What will happen to mail for an address, and why: findings, and the verdict they add up to."""
