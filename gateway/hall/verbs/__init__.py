"""What a dialplan tells a call to do."""
