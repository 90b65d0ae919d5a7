"""What a mail says, for people and programs: header, text, attachments, pictures, events."""
