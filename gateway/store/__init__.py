"""What outlives a process: call sessions in Redis; calls and SIP users on disk."""
