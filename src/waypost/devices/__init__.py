"""The devices that send mail: what they are called."""
